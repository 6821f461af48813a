"""An httpx transport for addresses that tenants have set, for libraries that speak HTTP by themselves; it guards as
`adapters.outgoing` does.

Each name is resolved once, each of its addresses checked, and the connection goes to a checked one. No proxy of the
environment is used; an answer is read up to a limit, and never decompressed.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import httpcore2
import httpx2

from adapters.addresses import is_public
from adapters.allow_list import NONE, AllowList
from adapters.outgoing import ForbiddenUrl, check_url

Resolve = Callable[[str, int], Awaitable[list[str]]]
_PRIVATE = "this address lies in a private network, or is none of a single machine in the Internet"


async def resolved(host: str, port: int) -> list[str]:
    """The addresses of a name, by the system."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class TooLarge(httpx2.TransportError):
    """The answer is larger than may be."""


class Guarded(httpx2.AsyncHTTPTransport):
    """`limit`: bytes of an answer. `resolve`: for tests; else the system's."""

    def __init__(self, allowed: AllowList = NONE, limit: int = 1024 * 1024, resolve: Resolve = resolved) -> None:
        limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=5)
        super().__init__(trust_env=False, limits=limits)
        self._allowed, self._limit = allowed, limit
        self._pool._network_backend = _CheckedNetwork(allowed, resolve)  # the constructor takes none

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        check_url(str(request.url), self._allowed)
        request.headers["accept-encoding"] = "identity"
        answer = await super().handle_async_request(request)
        if answer.headers.get("content-encoding", "identity") != "identity":
            await answer.aclose()
            raise httpx2.DecodingError("the answer is compressed, which was not asked for", request=request)
        assert isinstance(answer.stream, httpx2.AsyncByteStream)
        answer.stream = _Bounded(answer.stream, self._limit)
        return answer


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit: int) -> None:
        self._inner, self._limit = inner, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._inner:
            size += len(piece)
            if size > self._limit:
                raise TooLarge(f"the answer has more than {self._limit} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    def __init__(self, allowed: AllowList, resolve: Resolve) -> None:
        self._allowed, self._resolve = allowed, resolve
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._checked(host.strip("[]"), port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout("the name was not resolved in time") from error
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} has no address") from error
        failed: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed

    async def _checked(self, host: str, port: int) -> list[str]:
        """Raises `ForbiddenUrl` where any of the name's addresses may not be asked."""
        found = await self._resolve(host, port)
        named = self._allowed.has(host, port)
        if not named and not all(self._allowed.has(one, port) or is_public(one) for one in found):
            raise ForbiddenUrl(_PRIVATE)
        return found

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
