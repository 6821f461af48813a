"""The tools that the service itself offers by the Model Context Protocol: ask, search, find products."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request

from domain.commands import Ended, Send
from domain.errors import Unavailable
from domain.ids import new_id
from domain.model import AUTO
from domain.permissions import Permission
from domain.products import Product, ProductQuery
from domain.tenant import Caller
from serve_app.ingress.allowed import may_name
from serve_app.ingress.auth import forbidden
from serve_app.ingress.bodies import Content, ModelId, Native
from serve_app.ingress.catalogue import catalogue_of
from serve_app.ingress.context import visit_of
from serve_app.ingress.errors import Problem
from serve_app.ingress.owned import check_conversation, own_user
from serve_app.ingress.params import key_of
from serve_app.ingress.parts import parts_of
from serve_app.ingress.sending import hand_over
from serve_app.ingress.shapes import message_json
from storage.creation import NewConversation
from storage.recall import Filters

Said = tuple[str, dict[str, Any]]
"""What a tool tells: as text, and as data."""


class Ask(Native):
    """`conversation_id`: of the conversation to go on with; a new one is begun without it."""

    message: Content
    conversation_id: Annotated[str, Field(max_length=64)] | None = None
    model: ModelId = AUTO


class SearchConversations(Native):
    """`query`: words, or what is meant."""

    query: Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S")]
    limit: Annotated[int, Field(ge=1, le=50)] = 10


class FindProducts(Native):
    """`query`: words, in the user's own. Prices are of one piece, in `currency` (ISO 4217)."""

    query: Annotated[str, Field(max_length=1000)] = ""
    category: Annotated[str, Field(max_length=255)] | None = None
    min_price: Annotated[float, Field(ge=0)] | None = None
    max_price: Annotated[float, Field(ge=0)] | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    in_stock: bool | None = None
    limit: Annotated[int, Field(ge=1, le=50)] = 10


async def _ask(request: Request, who: Caller, asked: Ask) -> Said:
    may_name(who, asked.model)
    parts = parts_of(request)
    conversation = asked.conversation_id
    if conversation is None:
        if not who.may(Permission.CONVERSATIONS_WRITE):
            raise forbidden(Permission.CONVERSATIONS_WRITE)
        most = (await parts.tenants.settings(who.tenant)).quotas.max_conversations
        new = NewConversation(new_id("conv"), who.only_user or who.user, None, {}, None, most=most)
        conversation = (await parts.reader.create_conversation(who, new))[0].id
    else:
        await check_conversation(request, who, conversation)
    visit_of(request.scope).conversation = conversation
    turn_id = new_id("turn")
    visit_of(request.scope).turn = turn_id
    send = Send(
        key=key_of(who, conversation),
        caller=who.key_id,
        idempotency_key=f"auto-{turn_id}",
        body_hash=b"",
        turn_id=turn_id,
        message_id=new_id("msg"),
        content=asked.message,
        model=asked.model,
        live=False,
        wait=True,
    )
    ended = await hand_over(request, send)
    assert isinstance(ended, Ended)
    if ended.message is None or ended.message.status != "completed":
        raise Problem(502, str((ended.turn.error or {}).get("message") or "the turn was cancelled"))
    told = {"conversation_id": conversation, "turn_id": turn_id, "message_id": ended.message.id}
    return ended.message.content, {**told, "reply": ended.message.content, "model": ended.message.model}


async def _search(request: Request, who: Caller, asked: SearchConversations) -> Said:
    memory = parts_of(request).memory
    if memory is None:
        raise Unavailable("messages are not indexed here")
    found = await memory.search(
        who.tenant, asked.query, asked.limit, Filters(own_user(who, None), None, None, None, None)
    )
    messages = [{"message": message_json(one.one), "score": one.score} for one in found.found]
    lines = [f"{one.one.conversation_id} {one.one.role}: {one.one.content[:500]}" for one in found.found]
    return "\n".join(lines) or "nothing was found", {"data": messages, "degraded": list(found.degraded)}


async def _products(request: Request, who: Caller, asked: FindProducts) -> Said:
    query = ProductQuery(
        text=asked.query,
        category=asked.category,
        min_price=None if asked.min_price is None else Decimal(str(asked.min_price)),
        max_price=None if asked.max_price is None else Decimal(str(asked.max_price)),
        currency=asked.currency,
        in_stock=asked.in_stock,
        limit=asked.limit,
    )
    found = await catalogue_of(request).read.search(who.tenant, query)
    products = [one.product for one in found.items]
    data = {"data": [one.model_dump(mode="json") for one in products], "total": found.total}
    return "\n".join(map(_line, products)) or "nothing was found", data


def _line(product: Product) -> str:
    price = "" if product.price is None else f", {product.price} {product.currency or ''}".rstrip()
    stock = {True: ", in stock", False: ", out of stock", None: ""}[product.in_stock]
    return f"{product.id}: {product.title}{price}{stock}"


@dataclass(frozen=True, slots=True)
class OwnTool:
    """`read_only`: a call changes nothing, so it may be repeated."""

    description: str
    needs: Permission
    arguments: type[Native]
    call: Callable[[Request, Caller, Any], Awaitable[Said]]
    read_only: bool


ASK = "ask"
TOOLS: dict[str, OwnTool] = {
    ASK: OwnTool(
        "Send a message to a conversation, a new one if none is named, and get the reply.",
        Permission.MESSAGES_SEND,
        Ask,
        _ask,
        read_only=False,
    ),
    "search_conversations": OwnTool(
        "Find messages of conversations by their words and by what they mean, the best first.",
        Permission.CONVERSATIONS_READ,
        SearchConversations,
        _search,
        read_only=True,
    ),
    "find_products": OwnTool(
        "Find products by words, category, price and stock, the best first.",
        Permission.CATALOG_READ,
        FindProducts,
        _products,
        read_only=True,
    ),
}
