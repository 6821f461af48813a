"""What faces people: the HTTP API. `create_app(parts)` gives the application that a replica serves."""

from serve_app.ingress.app import create_app
from serve_app.ingress.parts import IngressSettings, Parts

__all__ = ["IngressSettings", "Parts", "create_app"]
