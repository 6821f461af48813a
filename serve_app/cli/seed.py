"""`brain seed`: demonstration tenants with users, conversations, intents and products on a running service.

What is there already stays, so it can be run again; at the end it looks at all that it made.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated
from urllib.parse import quote

import typer

from serve_app.cli.calling import all_of
from serve_app.cli.catalog_file import as_json
from serve_app.cli.chat_client import Client
from serve_app.cli.intents import EVERY, define
from serve_app.cli.options import Data
from serve_app.cli.progress import shown
from serve_app.cli.running import ApiKey, Url, service_of
from serve_app.cli.seed_data import SHOPS, Shop, Talk
from serve_app.embedded.refusal import Refusal

KEY_NAME = "brain seed"
NO_ROUTE = "there is no such route"
NO_USERS = "this service has no route for users: they are left out, and conversations name them all the same"

Tell = Callable[[str, int, int], None]


@dataclass
class Planted:
    """A shop as it stands: its tenant, a client with a key of its own, its users' ids, its conversations by name, its
    web widget."""

    shop: Shop
    tenant: str
    key: str
    client: Client
    users: list[str]
    talks: dict[str, str]
    chat: str | None = None


def seed(
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="Train a head for each tenant's intents, which takes seconds.")
    ] = True,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Make demonstration tenants, users, conversations, intents and products, and check what was made. It can be run
    again."""
    address, key = service_of(url, api_key, data)
    planted = asyncio.run(_seed(address, key, train))
    for one in planted:
        more = f", {len(one.shop.intents)} intents" if train and one.shop.intents else ""
        more += f", {len(one.shop.products)} products" if one.shop.products else ""
        typer.echo(f"{one.shop.name}: {len(one.users)} users, {len(one.talks)} conversations{more}; all checked")
        typer.echo(f"  tenant {one.tenant}\n  key of an owner {one.key}")
        if one.chat:
            typer.echo(f"  chat, in a browser: {address}/widget/{one.chat}")


async def _seed(address: str, key: str, train: bool) -> list[Planted]:
    steps = sum(3 + sum(len(talk.says) for talk in shop.talks) + _more(shop, train) for shop in SHOPS)
    planted: list[Planted] = []
    async with _client(address, key) as operator:
        with shown() as tell:
            done = 0

            def step(shop: Shop, what: str) -> None:
                nonlocal done
                tell(f"{shop.name}: {what}", done, steps)
                done += 1

            try:
                for shop in SHOPS:
                    planted.append(await _plant(operator, address, shop, train, partial(step, shop)))
                for one in planted:
                    step(one.shop, "checking")
                    await _check(one, [other for other in planted if other is not one], train)
            finally:
                for one in planted:
                    await one.client.close()
    return planted


async def _plant(operator: Client, address: str, shop: Shop, train: bool, step: Callable[[str], None]) -> Planted:
    step("tenant and key")
    tenant = await _tenant(operator, shop)
    key = await _key(operator, tenant)
    client = Client(address, key, tell=_say)
    await client.open()
    try:
        step("users")
        users = await _users(client, shop)
        if shop.products:  # before the talks, which ask for them
            step("products")
            await _products(client, shop)
        chat = await _chat(client, shop) if shop.chat else None
        talks = {}
        for talk in shop.talks:
            talks[talk.name] = await _talk(client, talk, (users or _names(shop))[talk.by], step)
        if train and shop.intents:
            step("intents")
            await _train(client, shop)
    except BaseException:
        await client.close()
        raise
    return Planted(shop, tenant, key, client, users, talks, chat)


async def _tenant(operator: Client, shop: Shop) -> str:
    for one in await all_of(operator.call, "/admin/tenants"):
        if one["name"] == shop.name:
            if one["status"] != "active":
                raise Refusal(f"{shop.name} is suspended: `brain tenants resume {one['id']}` first")
            return str(one["id"])
    made = await operator.call("POST", "/admin/tenants", json={"name": shop.name, "settings": shop.settings})
    return str(made["id"])


async def _key(operator: Client, tenant: str) -> str:
    """A key of this run, in the place of one of an earlier run: nobody can show that again."""
    path = f"/admin/tenants/{tenant}/keys"
    for one in await all_of(operator.call, path):
        if one["name"] == KEY_NAME and one["status"] == "active":
            await operator.call("DELETE", f"{path}/{one['id']}")
    return str((await operator.call("POST", path, json={"name": KEY_NAME, "role": "owner"}))["key"])


async def _users(client: Client, shop: Shop) -> list[str]:
    """Ids of the shop's users; none where the service knows no users. Their passwords are random, and kept nowhere."""
    try:
        known = {one["email"]: one["id"] for one in await all_of(client.call, "/users")}
    except Refusal as refusal:
        if NO_ROUTE not in str(refusal):
            raise
        _say(NO_USERS)
        return []
    for name, email in shop.people:
        if email not in known:
            body = {"email": email, "name": name, "password": secrets.token_urlsafe(24)}
            known[email] = (await client.call("POST", "/users", json=body))["id"]
    return [known[email] for _, email in shop.people]


async def _talk(client: Client, talk: Talk, user: str, step: Callable[[str], None]) -> str:
    """The conversation, with all that is to be said in it; what was said in an earlier run is not said again."""
    found = [one for one in await all_of(client.call, "/conversations") if one["metadata"].get("seed") == talk.name]
    if found:
        conversation = str(found[0]["id"])
    else:
        body = {"title": talk.title, "user_id": user, "metadata": {"seed": talk.name}}
        conversation = str((await client.call("POST", "/conversations", json=body))["id"])
    said = [
        one for one in await all_of(client.call, f"/conversations/{conversation}/messages") if one["role"] == "user"
    ]
    for number, text in enumerate(talk.says):
        step(talk.title)
        if number >= len(said):
            await client.call(
                "POST",
                f"/conversations/{conversation}/messages",
                json={"content": text, "model": "scripted"},
                headers={"idempotency-key": f"seed-{conversation}-{number}"},
            )
    return conversation


async def _products(client: Client, shop: Shop) -> None:
    """All of them, whether they are there or not: what somebody changed is put right."""
    given = [as_json(one) for one in shop.products]
    told = await client.call("POST", "/catalog/products/import", json=given)
    if told["failed"]:
        raise Refusal(f"{shop.name}: {told['errors'][0]['id']}: {told['errors'][0]['message']}")


async def _chat(client: Client, shop: Shop) -> str:
    """The shop's web widget, which stands on no page and opens by itself."""
    for one in await all_of(client.call, "/channels"):
        if one["kind"] == "widget" and one["name"] == KEY_NAME:
            return str(one["id"])
    body = {"kind": "widget", "name": KEY_NAME, "settings": {"origins": [], **(shop.chat or {})}}
    return str((await client.call("POST", "/channels", json=body))["id"])


async def _check_products(one: Planted) -> None:
    total = (await one.client.call("GET", "/catalog/structure"))["total"]
    if total < len(one.shop.products):
        raise Refusal(f"{one.shop.name}: its catalogue has {total} products, not {len(one.shop.products)}")
    for query, id in one.shop.finds.items():
        found = (await one.client.call("GET", f"/catalog/products?{quote(query, safe='=&')}"))["data"]
        if not found or found[0]["id"] != id:
            raise Refusal(f"{one.shop.name}: {query!r} does not find {id}")


async def _train(client: Client, shop: Shop) -> None:
    page = await client.call("GET", "/intents?limit=100")
    if {one["name"] for one in page["data"]} >= set(shop.intents) and (page["head"] or {}).get("version"):
        return
    await define(client.call, [{"name": name, "examples": texts} for name, texts in shop.intents.items()], _quiet)
    made = await client.call("POST", "/intents/train", json={"effort": "first"})
    while made["status"] in ("queued", "running"):
        await asyncio.sleep(EVERY)
        made = await client.call("GET", f"/intents/training/{made['id']}")
    if made["status"] == "failed":
        raise Refusal(f"{shop.name}: {made['error']['message']}")


async def _check(one: Planted, others: list[Planted], train: bool) -> None:
    """Raises `Refusal` naming what is not as it should be."""
    tenant = await one.client.call("GET", f"/tenants/{one.tenant}")
    if tenant["status"] != "active" or not tenant["settings"]["system_prompt"]:
        raise Refusal(f"{one.shop.name}: its settings are not those of the demonstration")
    for talk in one.shop.talks:
        path = f"/conversations/{one.talks[talk.name]}"
        messages = await all_of(one.client.call, f"{path}/messages")
        said = tuple(message["content"] for message in messages if message["role"] == "user")
        if said[: len(talk.says)] != talk.says:
            raise Refusal(f"{one.shop.name}: {talk.title!r} does not hold what was said in it")
        answers = [
            message for message in messages if message["role"] == "assistant" and message["status"] == "completed"
        ]
        if len(answers) < len(talk.says):
            raise Refusal(f"{one.shop.name}: {talk.title!r} lacks answers")
        for other in others:
            if await _sees(other.client, path):
                raise Refusal(f"{other.shop.name} sees a conversation of {one.shop.name}")
    if train and one.shop.intents:
        await _check_intents(one)
    if one.shop.products:
        await _check_products(one)


async def _check_intents(one: Planted) -> None:
    texts = list(one.shop.asks)
    for tries in range(40):  # replicas take a new head up within seconds
        found = (await one.client.call("POST", "/intents/classify", json={"texts": texts}))["data"]
        wrong = [text for text, told in zip(texts, found, strict=True) if told["intent"]["name"] != one.shop.asks[text]]
        if not wrong:
            return
        await asyncio.sleep(EVERY if tries < 39 else 0)
    raise Refusal(f"{one.shop.name}: {wrong[0]!r} is not taken for {one.shop.asks[wrong[0]]!r}")


async def _sees(client: Client, path: str) -> bool:
    try:
        await client.call("GET", path)
    except Refusal:
        return False
    return True


def _more(shop: Shop, train: bool) -> int:
    """How many further steps it takes."""
    return (train and bool(shop.intents)) + bool(shop.products)


def _names(shop: Shop) -> list[str]:
    return [email for _, email in shop.people]


def _say(words: str) -> None:
    typer.echo(words, err=True)


def _quiet(what: str, done: int, total: int) -> None:
    return


@asynccontextmanager
async def _client(address: str, key: str) -> AsyncIterator[Client]:
    client = Client(address, key, tell=_say)
    await client.open()
    try:
        yield client
    finally:
        await client.close()
