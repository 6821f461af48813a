"""What `brain up` runs on one machine: PostgreSQL, Redis and Ray as supervised child processes, all on loopback.

No module here imports ray or torch, so that the command starts at once; `ray_hooks` is loaded by Ray's own processes.
"""
