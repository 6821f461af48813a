"""Parameters of paths and queries."""

from typing import Annotated, Literal

from fastapi import Depends, Query
from pydantic import BeforeValidator

from domain.conversation import ConversationKey
from domain.errors import NotFound
from domain.ids import Prefix, is_id
from domain.tenant import Caller
from serve_app.ingress.errors import Problem
from storage.pages import PageQuery

Limit = Annotated[int, Query(ge=1, le=100)]
Order = Annotated[Literal["asc", "desc"] | None, Query()]


def known(value: str, prefix: Prefix, what: str) -> str:
    """The id, if it has the shape of one; raises `NotFound`, for a malformed id is an unknown id."""
    if not is_id(value, prefix):
        raise NotFound(f"there is no such {what}")
    return value


def key_of(caller: Caller, conversation_id: str) -> ConversationKey:
    return ConversationKey(caller.tenant, known(conversation_id, "conv", "conversation"))


def oldest_first(after: str | None = None, limit: Limit = 20, order: Order = None) -> PageQuery:
    return PageQuery(after, limit, order == "desc")


def newest_first(after: str | None = None, limit: Limit = 20, order: Order = None) -> PageQuery:
    return PageQuery(after, limit, order != "asc")


def text(name: str, value: str | None) -> str | None:
    """A query's text, which Postgres must be able to hold."""
    if value is not None and "\0" in value:
        raise Problem(422, f"{name}: must not contain the character NUL", name)
    return value


def _written(value: object) -> object:
    """pydantic would take a number for seconds since 1970; the API's times are RFC 3339."""
    if isinstance(value, str) and "-" not in value[1:]:
        raise ValueError("is no time as in RFC 3339")
    return value


Written = BeforeValidator(_written)
OldestFirst = Annotated[PageQuery, Depends(oldest_first)]
NewestFirst = Annotated[PageQuery, Depends(newest_first)]
