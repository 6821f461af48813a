"""What a conversation is and what a turn does, with no I/O."""
