"""How the API describes itself: bodies and answers of routes that read and write JSON themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

_BODIES: dict[str, type[BaseModel]] = {}
_PUBLIC = frozenset(
    (
        *("/health", "/health/live", "/health/ready", "/metrics", "/.well-known/jwks.json"),
        *("/.well-known/oauth-authorization-server", "/api/v1/auth/refresh", "/api/v1/auth/authorize"),
        *("/api/v1/auth/token", "/api/v1/auth/revoke", "/api/v1/auth/introspect", "/.well-known/receipts.json"),
        *("/api/v1/channels/{channel_id}/inbound", "/api/v1/widgets/{channel_id}/sessions"),
        *("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"),
    )
)
_REF = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


def takes(model: type[BaseModel], required: bool = True, creates: bool = False) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads `model` from its body; `creates`: it heeds an `Idempotency-Key`."""
    _BODIES[model.__name__] = model
    schema = {"$ref": _REF.format(model=model.__name__)}
    described: dict[str, Any] = {
        "requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}
    }
    if creates:
        described["parameters"] = [_IDEMPOTENCY]
    return described


def describe(app: FastAPI) -> None:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    described = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name, model in _BODIES.items():
        schema = model.model_json_schema(ref_template=_REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[name] = schema
    schemas["Error"] = _ERROR
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    error = {
        "description": "An error",
        "content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}},
    }
    for path, methods in described["paths"].items():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            operation["responses"].setdefault("default", error)
            if path not in _PUBLIC:
                operation["security"] = [{"key": []}]
    return described
