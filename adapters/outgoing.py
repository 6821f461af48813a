"""Requests to addresses that a tenant has set: they must not reach into the network in which the service runs.

A name is resolved once, each address that it has is checked, and the connection goes to a checked address: a name that
means something else a moment later (DNS rebinding) gains nothing. No redirect is followed, no proxy of the environment
is used, and size and time are bounded. (OWASP API Security Top 10, 2023, API7: Server Side Request Forgery.)
"""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from adapters.addresses import is_public
from adapters.allow_list import NONE, AllowList
from domain.errors import BrainError

LIMIT = 256 * 1024  # bytes of an answer
WAIT = 10.0  # seconds that a whole request may take
PIECE = 64 * 1024
_PRIVATE = "this address lies in a private network, or is none of a single machine in the Internet"


class ForbiddenUrl(BrainError):
    """This URL must not be asked; the message says why."""

    status = 422
    type = "invalid_request_error"
    code = "forbidden_url"


class OutgoingFailed(BrainError):
    """The server that a URL names gave no answer that can be used."""

    status = 502
    type = "upstream_error"
    code = "outgoing_failed"


class AnswerTooLarge(OutgoingFailed):
    """The answer has more bytes than may be."""


class _Closed(OSError):
    """No connection is made to this address."""


@dataclass(frozen=True, slots=True)
class Answered:
    """`status`: HTTP's, also of a redirect, which was not followed. `headers`: by names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def check_url(text: str, allowed: AllowList = NONE) -> URL:
    """The URL, if it may be asked as far as can be told without resolving its name.

    https only, by default or from port 1024 on, without credentials in it. Raises `ForbiddenUrl`, which says why.
    """
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        raise ForbiddenUrl("this is no URL") from None
    if url.scheme not in ("https", "http") or not host or not url.absolute:
        raise ForbiddenUrl("only URLs such as https://example.com/path can be asked")
    if any(ord(one) <= 0x20 or ord(one) == 0x7F for one in text) or "\\" in text:
        raise ForbiddenUrl("a URL has no spaces, control characters or backslashes")
    if url.user is not None or url.password is not None:
        raise ForbiddenUrl("a URL must hold no user and no password")
    if allowed.has(host, port or 0):
        return url
    if url.scheme != "https":
        raise ForbiddenUrl("only https:// can be asked")
    if port != 443 and (port is None or port < 1024):
        raise ForbiddenUrl("the port must be 443, or 1024 and more")
    if ":" in host or host.replace(".", "").isdigit():
        _check_literal(host)
    return url


def check_socket_url(text: str, allowed: AllowList = NONE) -> URL:
    """The same of `wss://`, and of `ws://` where that is allowed: the URL that is asked for the upgrade."""
    scheme, there, rest = text.partition("://")
    if not there or scheme.lower() not in ("ws", "wss"):
        raise ForbiddenUrl("only URLs such as wss://example.com/path can be asked")
    return check_url(("https" if scheme.lower() == "wss" else "http") + "://" + rest, allowed)


def _check_literal(host: str) -> None:
    try:
        public = is_public(host)
    except ValueError:
        raise ForbiddenUrl("an address must be written in its usual form") from None
    if not public:
        raise ForbiddenUrl(_PRIVATE)


class Outgoing:
    """`async with Outgoing() as outgoing: await outgoing.request("POST", url, body=…)`; one for as long as wanted.

    `connect`: seconds of `wait` that a connection may take. `keep`: seconds that an idle connection stays open for the
    next request; it leads where it was checked to lead. `resolver`: for tests; else the system's.
    """

    def __init__(
        self,
        allowed: AllowList = NONE,
        wait: float = WAIT,
        limit: int = LIMIT,
        resolver: AbstractResolver | None = None,
        connect: float | None = None,
        keep: float = 0,
        connections: int = 100,
    ) -> None:
        self._allowed, self._wait, self._limit = allowed, wait, limit
        self._resolver, self._connect, self._keep, self._connections = resolver, connect, keep, connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        checked = _Checked(self._resolver or aiohttp.ThreadedResolver(), self._allowed)
        straight = aiohttp.TraceConfig()
        straight.on_request_redirect.append(_refuse_redirect)  # an upgrade would follow one
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=checked,
                use_dns_cache=False,
                socket_factory=checked.socket,
                limit=self._connections,
                **({"keepalive_timeout": self._keep} if self._keep else {"force_close": True}),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            trace_configs=[straight],
            auto_decompress=False,  # a small answer could grow without bounds
            headers={"user-agent": "brain", "accept-encoding": "identity"},
            max_line_size=8190,
            max_field_size=8190,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        wait: float | None = None,
    ) -> Answered:
        """One answer, whatever its status. `wait`: seconds, where it may take others than usual. Raises `ForbiddenUrl`,
        or `OutgoingFailed` where none came in time, or one too large."""
        assert self._session is not None
        checked = check_url(url, self._allowed)
        limits = aiohttp.ClientTimeout(total=self._wait if wait is None else wait, connect=self._connect)
        try:
            async with self._session.request(
                method, checked, headers=headers, data=body, allow_redirects=False, timeout=limits
            ) as answer:
                content = await self._read(answer)
                return Answered(answer.status, {n.lower(): v for n, v in answer.headers.items()}, content)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            if _closed(error):
                raise ForbiddenUrl(_PRIVATE) from None
            words = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
            raise OutgoingFailed(f"{checked.host} gave no answer: {words}") from None

    async def socket(self, url: str, headers: Mapping[str, str]) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket without compression, whose messages are bounded as answers are. Raises as `request` does."""
        assert self._session is not None
        checked = check_socket_url(url, self._allowed)
        try:
            async with asyncio.timeout(self._wait):
                return await self._session.ws_connect(checked, headers=headers, max_msg_size=self._limit)
        except aiohttp.WSServerHandshakeError as error:
            raise OutgoingFailed(f"{checked.host} answered {error.status}, not with a WebSocket") from None
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            if _closed(error):
                raise ForbiddenUrl(_PRIVATE) from None
            words = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
            raise OutgoingFailed(f"{checked.host} gave no answer: {words}") from None

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        pieces, size = [], 0
        async for piece in answer.content.iter_chunked(PIECE):
            size += len(piece)
            if size > self._limit:
                raise AnswerTooLarge(f"{answer.url.host} answered more than {self._limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)


async def _refuse_redirect(_: Any, __: Any, followed: aiohttp.TraceRequestRedirectParams) -> None:
    followed.response.close()
    raise OutgoingFailed(f"{followed.url.host} answered {followed.response.status}, not with a WebSocket")


class _Checked(AbstractResolver):
    """Gives what `inner` gives, where a tenant may be sent there; and opens sockets to nothing else.

    The second holds for whatever way an address came: written in the URL, in whatever notation, or resolved.
    """

    def __init__(self, inner: AbstractResolver, allowed: AllowList) -> None:
        self._inner, self._allowed = inner, allowed
        self._named: set[tuple[str, int]] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        named = self._allowed.has(host, port)
        for one in found:
            if named:
                self._named.add((one["host"], port))
            elif not self._may(one["host"], port):
                raise ForbiddenUrl(_PRIVATE)
        return found

    def socket(self, info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._may(address[0], address[1]) and (address[0], address[1]) not in self._named:
            raise _Closed(_PRIVATE)
        return socket.socket(family, kind, protocol)

    def _may(self, address: str, port: int) -> bool:
        return self._allowed.has(address, port) or is_public(address)

    async def close(self) -> None:
        await self._inner.close()


def _closed(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, _Closed):
        error = error.__cause__ or error.__context__
    return error is not None
