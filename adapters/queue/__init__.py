"""Queues of events (`domain.queue.Queue`): one backend a file."""
