"""The API asked by its own description. `python -m tests.api_fuzz`."""
