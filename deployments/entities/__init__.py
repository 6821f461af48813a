"""Slot values from a text: built-in kinds, patterns, and lists of names, with their offsets."""
