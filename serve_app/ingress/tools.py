"""Servers of tools that a tenant registers, the tools that they list, and users' consent to them."""

from contextlib import suppress
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from yarl import URL

from adapters.outgoing import check_url
from domain.errors import Unavailable
from domain.ids import new_id
from domain.permissions import Permission
from domain.tenant import Caller
from domain.tools import ListedTool, NewServer, ToolServer, called
from serve_app.ingress.answers import Answer, list_json, page_answer
from serve_app.ingress.auth import IsSelf, ManagesTools, ReadsTools
from serve_app.ingress.bodies import body_hash, checked, idempotency_key
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import NewestFirst, known
from serve_app.ingress.parts import parts_of
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.shapes import rfc3339
from serve_app.ingress.tool_bodies import (
    ConsentAnswer,
    ConsentBody,
    ConsentList,
    DeletedServer,
    ServerAnswer,
    ServerList,
    ToolAuth,
    ToolList,
    ToolServerCreate,
    ToolServerPatch,
    server_json,
)
from serve_app.ingress.tool_parts import ToolParts
from storage.tool_servers import bare, seal_name

router = APIRouter(prefix="/api/v1/tools", tags=["tools"])


def tools_of(request: Request) -> ToolParts:
    found = parts_of(request).tools
    if found is None:
        raise Unavailable("there are no tools here")
    return found


@router.post(
    "/servers",
    status_code=201,
    response_model=None,
    responses={201: {"model": ServerAnswer}},
    openapi_extra=takes(ToolServerCreate, creates=True),
)
async def create_server(request: Request, who: ManagesTools) -> Response:
    """Register a server of tools (Model Context Protocol, streamable HTTP) and ask it what it has."""
    tools = tools_of(request)
    body, key = checked(ToolServerCreate, await request.body(), strict=True), idempotency_key(request)
    check_url(body.url, tools.allowed)
    server_id = new_id("mcp")
    made, replayed = await tools.servers.create(
        who,
        NewServer(
            server_id,
            body.name,
            body.url,
            body.auth.kind if body.auth else "none",
            _sealed(tools, server_id, body.url, body.auth) if body.auth else None,
            body.allow,
            body.idempotent,
            body.consent,
            body.permissions,
            key,
            body_hash("tools/servers", body),
        ),
    )
    if not replayed:
        with suppress(Unavailable):  # it stands, and can be asked later
            made = await tools.refresh(who.tenant, made.id)
    return Answer(_server(made), 201, REPLAYED if replayed else {})


@router.get("/servers", response_model=None, responses={200: {"model": ServerList}})
async def list_servers(request: Request, who: ReadsTools, page: NewestFirst) -> Response:
    """The tenant's servers of tools, newest first."""
    if page.after is not None:
        _known(page.after)
    return page_answer(await tools_of(request).servers.page(who.tenant, page), lambda one: _shown(one, who))


@router.get("/servers/{server_id}", response_model=None, responses={200: {"model": ServerAnswer}})
async def get_server(request: Request, who: ReadsTools, server_id: str) -> Response:
    return Answer(_shown(await tools_of(request).servers.one(who.tenant, _known(server_id)), who))


@router.patch(
    "/servers/{server_id}",
    response_model=None,
    responses={200: {"model": ServerAnswer}},
    openapi_extra=takes(ToolServerPatch),
)
async def change_server(request: Request, who: ManagesTools, server_id: str) -> Response:
    """Change a server of tools. Turns that run may still use it as it was for a moment."""
    tools = tools_of(request)
    _known(server_id)
    body = checked(ToolServerPatch, await request.body(), strict=True)
    current = await tools.servers.one(who.tenant, server_id)
    fields = {
        name: value
        for name, value in body.model_dump(exclude_unset=True, exclude={"auth", "permissions"}).items()
        if value is not None
    }
    if "permissions" in body.model_fields_set:
        fields["roles"] = body.permissions
    url = body.url or current.url
    check_url(url, tools.allowed)
    if "auth" in body.model_fields_set:
        fields["auth"] = body.auth.kind if body.auth else "none"
        fields["sealed"] = _sealed(tools, server_id, url, body.auth) if body.auth else None
    elif current.auth != "none" and URL(url).origin() != URL(current.url).origin():
        raise Problem(422, "auth: must be given anew for a URL of another origin", "auth")
    changed = await tools.servers.change(who, server_id, fields)
    if {"url", "auth"} & body.model_fields_set:
        with suppress(Unavailable):
            changed = await tools.refresh(who.tenant, server_id)
    return Answer(_server(changed))


@router.delete("/servers/{server_id}", response_model=None, responses={200: {"model": DeletedServer}})
async def delete_server(request: Request, who: ManagesTools, server_id: str) -> Response:
    """Remove a server of tools, and all consent to it."""
    await tools_of(request).servers.delete(who, _known(server_id))
    return Answer({"id": server_id, "object": "tool_server", "deleted": True})


@router.post("/servers/{server_id}/refresh", response_model=None, responses={200: {"model": ServerAnswer}})
async def refresh_server(request: Request, who: ManagesTools, server_id: str) -> Response:
    """Ask a server what tools it has now. Where it does not answer, `error` says why, and what it had stays."""
    return Answer(_server(await tools_of(request).refresh(who.tenant, _known(server_id))))


@router.get("", response_model=None, responses={200: {"model": ToolList}})
async def list_tools(request: Request, who: ReadsTools) -> Response:
    """All tools of all servers, with the names that models know them by."""
    servers = await tools_of(request).servers.all(who.tenant)
    return Answer(list_json([_tool(server, tool) for server in servers for tool in server.tools], False))


@router.get("/consents", response_model=None, responses={200: {"model": ConsentList}})
async def list_consents(request: Request, who: IsSelf) -> Response:
    """The servers of tools that ask users, and whether the signed-in user has consented."""
    found = await tools_of(request).servers.consents(who.tenant, _user(who))
    return Answer(list_json([_consent(server, given) for server, given in found], False))


@router.put(
    "/consents", response_model=None, responses={200: {"model": ConsentAnswer}}, openapi_extra=takes(ConsentBody)
)
async def give_consent(request: Request, who: IsSelf) -> Response:
    """Let turns of the signed-in user's conversations use a server of tools."""
    body = checked(ConsentBody, await request.body(), strict=True)
    servers, user = tools_of(request).servers, _user(who)
    await servers.consent(who, user, _known(body.server_id))
    server = await servers.one(who.tenant, body.server_id)
    given = {one.id: at for one, at in await servers.consents(who.tenant, user)}.get(server.id)
    return Answer(_consent(server, given))


@router.delete("/consents", response_model=None, responses={200: {"model": ConsentAnswer}})
async def withdraw_consent(request: Request, who: IsSelf, server_id: str) -> Response:
    """Take a consent back; turns that begin from now on do without these tools."""
    servers = tools_of(request).servers
    server = await servers.one(who.tenant, _known(server_id))
    await servers.withdraw(who, _user(who), server.id)
    return Answer(_consent(server, None))


def _user(who: Caller) -> str:
    if who.user is None:
        raise Problem(403, "only a signed-in user consents, for itself")
    return who.user


def _known(server_id: str) -> str:
    return known(server_id, "mcp", "server of tools")


def _sealed(tools: ToolParts, server_id: str, url: str, auth: ToolAuth) -> dict[str, str]:
    return tools.keys.seal(auth.line.encode(), seal_name(server_id, url))


def _shown(server: ToolServer, who: Caller) -> dict[str, Any]:
    """As `_server`; the whole URL is for those who set it."""
    told = _server(server)
    return told if who.may(Permission.TOOLS_MANAGE) else {**told, "url": bare(server.url)}


def _server(server: ToolServer) -> dict[str, Any]:
    times = {name: _time(getattr(server, name)) for name in ("listed_at", "created_at", "updated_at")}
    return {**server_json(server), **times}


def _tool(server: ToolServer, tool: ListedTool) -> dict[str, Any]:
    name = called(server.name, tool.name)
    return {
        "id": f"{server.id}/{tool.name}",
        "object": "tool",
        "name": name,
        "tool": tool.name,
        "server_id": server.id,
        "server": server.name,
        "description": tool.description,
        "input_schema": tool.input_schema,
        "allowed": tool.name in server.allow,
        "idempotent": server.repeatable(tool),
        "consent": server.consent,
    }


def _consent(server: ToolServer, given: datetime | None) -> dict[str, Any]:
    return {
        "id": server.id,
        "object": "tool_consent",
        "server_id": server.id,
        "server": server.name,
        "url": bare(server.url),
        "tools": [tool.name for tool in server.allowed],
        "given_at": _time(given),
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)
