"""The service as a server of tools: `/mcp`, by the Model Context Protocol over streamable HTTP.

Each request stands for itself: no replica keeps a session. Keys and access tokens are those of the other routes; who
has none is told where tokens are to be had (RFC 9728).
"""

from collections.abc import MutableMapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool, ToolAnnotations
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from domain.acting import acting_for
from domain.errors import BrainError
from domain.limits import Use
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import Needs, authenticated, forbidden
from serve_app.ingress.errors import Problem
from serve_app.ingress.limiting import limit
from serve_app.ingress.own_tools import ASK, TOOLS
from serve_app.ingress.parts import parts_of

router = APIRouter(tags=["tools"])
PATH = "/mcp"
METADATA = "/.well-known/oauth-protected-resource"


class ProtectedResource(BaseModel):
    """What the resource is, and who gives tokens for it."""

    resource: str
    authorization_servers: list[str]
    bearer_methods_supported: list[str]
    resource_name: str


class UsesTools(Needs):
    """As `Needs`, for programs of others: a browser's page of another origin is refused, and a refusal says where
    tokens are to be had. A call that runs a turn takes of the caller's limits what a turn takes."""

    async def __call__(self, request: Request) -> Caller:
        _check_origin(request)
        try:
            caller = await authenticated(request)
        except Problem as problem:
            if problem.status == 401:
                told = f'Bearer realm="brain", resource_metadata="{_base(request)}{METADATA}{PATH}"'
                problem.headers = {**problem.headers, "www-authenticate": told}
            raise
        await limit(request, caller, _use_of(await request.body()))
        if self.permission not in caller.permissions:
            raise forbidden(self.permission)
        return caller


@router.post(PATH, response_model=None, responses={200: {"description": "An answer of JSON-RPC 2.0"}})
async def mcp(request: Request, who: Annotated[Caller, Depends(UsesTools(Permission.TOOLS_READ))]) -> Response:
    """Model Context Protocol: `ask`, `search_conversations`, `find_products`, as far as the caller may use them."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "send JSON-RPC as content-type: application/json")
    return _Spoken(_server(request, who), await request.body())


@router.get(METADATA, response_model=None, responses={200: {"model": ProtectedResource}})
async def protected_resource(request: Request) -> Response:
    """Where tokens for `/mcp` are to be had (RFC 9728)."""
    base = _base(request)
    return Answer(
        {
            "resource": base + PATH,
            "authorization_servers": [base],
            "bearer_methods_supported": ["header"],
            "resource_name": "The Brain",
        }
    )


router.add_api_route(
    METADATA + PATH,
    protected_resource,
    response_model=None,
    responses={200: {"model": ProtectedResource}},
    operation_id="protected_resource_of_mcp",
)


class _Spoken(Response):
    """Has the protocol's own server answer."""

    def __init__(self, server: Server[Any], body: bytes) -> None:
        self.status_code, self.background, self._server, self._body = 200, None, server, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = False

        async def replay() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": self._body, "more_body": False}

        manager = StreamableHTTPSessionManager(self._server, json_response=True, stateless=True)
        async with manager.run():
            await manager.handle_request(scope, replay, send)


def _server(request: Request, who: Caller) -> Server[Any]:
    """A server of what this caller may do, for one request."""

    async def listed(_: Any, __: Any) -> ListToolsResult:
        return ListToolsResult(tools=[_tool(name) for name, tool in TOOLS.items() if who.may(tool.needs)])

    async def call(_: Any, asked: CallToolRequestParams) -> CallToolResult:
        with acting_for(who.tenant):
            try:
                return await _called(request, who, asked.name, asked.arguments or {})
            except ValidationError as error:
                wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
                return _refused(wrong)
            except BrainError as error:
                return _refused(str(error))

    version = parts_of(request).settings.version
    return Server("brain", version=version, title="The Brain", on_list_tools=listed, on_call_tool=call)


async def _called(request: Request, who: Caller, name: str, arguments: MutableMapping[str, Any]) -> CallToolResult:
    tool = TOOLS.get(name)
    if tool is None:
        return _refused(f"there is no tool {name[:64]!r}")
    if not who.may(tool.needs):
        raise forbidden(tool.needs)
    if b"\\u0000" in orjson.dumps(arguments):
        return _refused("no argument may contain the character NUL")
    text, data = await tool.call(request, who, tool.arguments.model_validate(arguments))
    return CallToolResult(content=[TextContent(text=text)], structured_content=data)


def _tool(name: str) -> Tool:
    tool = TOOLS[name]
    hints = ToolAnnotations(read_only_hint=tool.read_only, open_world_hint=False)
    schema = tool.arguments.model_json_schema()
    return Tool(name=name, description=tool.description, input_schema=schema, annotations=hints)


def _refused(words: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=words)], is_error=True)


def _use_of(body: bytes) -> Use:
    try:
        asked = orjson.loads(body)
        turn = asked["method"] == "tools/call" and asked["params"]["name"] == ASK
    except (ValueError, KeyError, TypeError):
        return "request"
    return "turn" if turn else "request"


def _check_origin(request: Request) -> None:
    """Raises `Problem` 403: a page of another origin may have its browser ask under another name (DNS rebinding)."""
    origin = request.headers.get("origin")
    at_home = origin is None or origin.partition("://")[2] == request.headers.get("host")
    if not at_home and origin not in parts_of(request).settings.edge.origins:
        raise Problem(403, "pages of this origin may not ask here")


def _base(request: Request) -> str:
    identity = parts_of(request).identity
    return f"{request.url.scheme}://{request.url.netloc}" if identity is None else identity.tokens.issuer
