"""`python -m serve_app.cli` is `brain`."""

from serve_app.cli import main

main()
