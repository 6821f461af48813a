"""Stateful conversations: the host deployment, one conversation's actor, a turn's run, and its recovery."""
