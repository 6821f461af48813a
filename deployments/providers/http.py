"""What the wire formats over HTTP share: one pool of connections, and what an HTTP failure means."""

import asyncio
import email.utils
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from deployments.providers import ProviderFailure, shown
from domain.model import Provider

log = logging.getLogger(__name__)

RETRYABLE = frozenset({408, 409, 425, 429})  # and every 5xx
MAX_BODY = 16 << 20  # bytes of an answer that does not stream
MAX_ERROR = 64 << 10


class HttpPool:
    """One session for all providers; each has its own bound on connections."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._slots: dict[str, tuple[int, asyncio.Semaphore]] = {}

    @asynccontextmanager
    async def post(
        self, provider: Provider, path: str, headers: Mapping[str, str], body: bytes, key: str | None
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """A response with status 200, closed on exit; whatever goes wrong is a `ProviderFailure`."""
        name = f"provider {provider.name!r}"
        async with self._slot(provider):
            try:
                response = await self._open().post(
                    (provider.base_url or "").rstrip("/") + path,
                    data=body,
                    headers={"Content-Type": "application/json", **headers},
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=provider.timeouts.connect),
                )
                try:
                    if response.status != 200:
                        raise await refusal(provider, response, key)
                    if response.content_type == "text/html":
                        raise ProviderFailure(f"{name} answered with a web page; check its base_url")
                    yield response
                finally:
                    response.close()  # a body that was read to its end has given its connection back already
            except TimeoutError:
                raise ProviderFailure(f"{name} took too long to connect", retryable=True, timed_out=True) from None
            except (aiohttp.InvalidURL, aiohttp.ClientSSLError) as error:
                raise ProviderFailure(f"{name} cannot be called: {type(error).__name__}") from None
            except (aiohttp.ClientError, OSError) as error:
                log.warning("%s: %s", name, shown(repr(error), key))
                reached = not isinstance(error, aiohttp.ClientConnectorError)
                what = "broke the connection" if reached else "cannot be reached"
                raise ProviderFailure(f"{name} {what}", retryable=True) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "brain", "Accept-Encoding": "identity"},  # compression would hold tokens back
                read_bufsize=1 << 18,
            )
        return self._session

    def _slot(self, provider: Provider) -> asyncio.Semaphore:
        """A changed bound holds for new calls."""
        bound, slots = self._slots.get(provider.name, (0, None))
        if slots is None or bound != provider.max_connections:
            slots = asyncio.Semaphore(provider.max_connections)
            self._slots[provider.name] = (provider.max_connections, slots)
        return slots


async def refusal(provider: Provider, response: aiohttp.ClientResponse, key: str | None) -> ProviderFailure:
    """The failure that an HTTP error tells of."""
    status = response.status
    raw = await read_at_most(response, MAX_ERROR)
    try:
        answer = orjson.loads(raw)
        words = words_of(answer.get("error", answer) if isinstance(answer, dict) else answer)
    except ValueError:
        words = raw.decode(errors="replace")
    retryable = status in RETRYABLE or status >= 500
    after = retry_after(response.headers.get("Retry-After"), time.time()) if retryable else None
    told = shown(words, key)
    answered = f"provider {provider.name!r} answered {status}"
    return ProviderFailure(f"{answered}: {told}" if told else answered, retryable, after)


async def read_at_most(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or its first `limit` bytes and a little more."""
    parts, size = [], 0
    while size <= limit and (chunk := await response.content.readany()):
        parts.append(chunk)
        size += len(chunk)
    return b"".join(parts)


def words_of(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or ""
    return error if isinstance(error, str) else orjson.dumps(error).decode()


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110, 10.2.3): a number or a date; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None
