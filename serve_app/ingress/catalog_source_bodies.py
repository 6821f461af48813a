"""The bodies of the routes that say which catalogue a tenant has."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from domain.catalogue_sources import LONGEST, SHORTEST, USUAL, CatalogueSource
from serve_app.ingress.bodies import Native
from serve_app.ingress.shapes import rfc3339
from serve_app.ingress.tool_bodies import HeaderName, Secret, Url

Kind = Literal["built-in", "http"]


class GivenAuth(Native):
    """`bearer`: `Authorization: Bearer <secret>`; `header`: the secret in the header `name`."""

    kind: Literal["bearer", "header"]
    name: HeaderName | None = None
    secret: Secret

    @model_validator(mode="after")
    def one_way(self) -> "GivenAuth":
        if (self.kind == "header") != (self.name is not None):
            raise ValueError("a `header` has a `name`, and nothing else has")
        return self


class GivenSource(Native):
    """`built-in`: products are kept here. `http`: a service answers at `url`, below which the paths of its contract lie
    (docs/catalogue-service.yaml). `timeout_ms`: for one question, with all tries."""

    kind: Kind
    url: Url | None = None
    auth: GivenAuth | None = None
    timeout_ms: Annotated[int, Field(ge=SHORTEST, le=LONGEST)] | None = None

    @model_validator(mode="after")
    def fits(self) -> "GivenSource":
        if self.kind == "http":
            if self.url is None:
                raise ValueError("`http` needs a `url`")
            if "?" in self.url or "#" in self.url:
                raise ValueError("`url` must have neither query nor fragment")
        elif self.url is not None or self.auth is not None or self.timeout_ms is not None:
            raise ValueError("the built-in catalogue has no `url`, `auth` or `timeout_ms`")
        return self


class ShownAuth(BaseModel):
    kind: Literal["bearer", "header"]
    name: str | None


class SourceAnswer(BaseModel):
    """Where the tenant's products come from. The secret is never shown."""

    object: Literal["catalog.source"] = "catalog.source"
    kind: Kind
    url: str | None
    auth: ShownAuth | None
    timeout_ms: int | None
    updated_at: str | None


class SourceTest(BaseModel):
    """What the catalogue said just now. `ms`: how long it took; `error`: why it cannot be used."""

    object: Literal["catalog.source.test"] = "catalog.source.test"
    kind: Kind
    ok: bool
    ms: float
    products: int | None
    categories: int | None
    found: int | None
    error: str | None


def source_json(source: CatalogueSource | None) -> dict[str, Any]:
    if source is None:
        empty = dict.fromkeys(("url", "auth", "timeout_ms", "updated_at"))
        return {"object": "catalog.source", "kind": "built-in", **empty}
    return {
        "object": "catalog.source",
        "kind": "http",
        "url": source.url,
        "auth": None if source.auth == "none" else {"kind": source.auth, "name": source.header},
        "timeout_ms": source.timeout_ms,
        "updated_at": rfc3339(source.updated_at),
    }


def timeout_of(body: GivenSource) -> int:
    return USUAL if body.timeout_ms is None else body.timeout_ms
