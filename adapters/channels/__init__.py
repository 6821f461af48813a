"""Channels (`domain.channels.ChannelPort`), one kind a file."""
