"""What the wire formats over HTTP share: one pool of connections, and what an HTTP failure means."""

import email.utils
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from deployments.providers import ProviderFailure, shown
from domain.generation import GenerationRequest
from domain.model import Provider

log = logging.getLogger(__name__)

RETRYABLE = frozenset({408, 409, 425, 429})  # and every 5xx
REFUSED = frozenset({400, 413, 414, 422})
FINAL_CODES = frozenset({"insufficient_quota"})  # a 429 that waiting does not mend
MAX_BODY = 16 << 20  # bytes of an answer that does not stream
MAX_ERROR = 64 << 10
OPENAI_HOST = "api.openai.com"

Observe = Callable[[Provider, int, Mapping[str, str]], None]


class HttpPool:
    """One session for all providers, without a bound: who calls holds the bounds.

    `observe` hears the status and the headers of every response, before its body.
    """

    def __init__(self, observe: Observe | None = None) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._observe = observe

    @asynccontextmanager
    async def call(
        self,
        provider: Provider,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        key: str | None,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """A response with status 200, closed on exit; whatever goes wrong is a `ProviderFailure`."""
        name = f"provider {provider.name!r}"
        try:
            response = await self._open().request(
                method,
                (provider.base_url or "").rstrip("/") + path,
                data=body,
                headers={"Content-Type": "application/json", **headers} if body is not None else headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=provider.timeouts.connect),
            )
            try:
                if self._observe is not None:
                    self._observe(provider, response.status, response.headers)
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


def host_of(provider: Provider) -> str:
    return urlsplit(provider.base_url or "").hostname or ""


def headers_of(request: GenerationRequest, key: str | None) -> dict[str, str]:
    """What a call of an OpenAI-compatible server carries."""
    headers = {"Accept": "text/event-stream, application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if request.traceparent is not None:
        headers["traceparent"] = request.traceparent
    return headers


async def refusal(provider: Provider, response: aiohttp.ClientResponse, key: str | None) -> ProviderFailure:
    """The failure that an HTTP error tells of."""
    raw = await read_at_most(response, MAX_ERROR)
    error: Any = raw.decode(errors="replace")
    try:
        answer = orjson.loads(raw)
        error = answer.get("error", answer) if isinstance(answer, dict) else answer
    except ValueError:
        pass
    retryable = is_retryable(response.status, error)
    if (asked := response.headers.get("x-should-retry")) in ("true", "false"):  # OpenAI's and Anthropic's clients too
        retryable = asked == "true"
    after = asked_delay(response.headers) if retryable else None
    return told(provider, key, error, response.status, retryable, after, f"answered {response.status}")


def told(
    provider: Provider,
    key: str | None,
    error: Any,
    status: int,
    retryable: bool | None = None,
    after: float | None = None,
    what: str = "failed",
) -> ProviderFailure:
    """The failure of an error object, with its status, as an answer or in the middle of one."""
    words, said = shown(words_of(error), key), f"provider {provider.name!r} {what}"
    retryable = is_retryable(status, error) if retryable is None else retryable
    refused = status in REFUSED and not retryable
    return ProviderFailure(f"{said}: {words}" if words else said, retryable, after, status=status, refused=refused)


def is_retryable(status: int, error: Any) -> bool:
    code = error.get("code") if isinstance(error, dict) else None
    return (status in RETRYABLE or status >= 500) and not (isinstance(code, str) and code in FINAL_CODES)


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


def asked_delay(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asked to wait; OpenAI also says it in milliseconds."""
    milliseconds = retry_after(headers.get("retry-after-ms"), 0.0)
    return retry_after(headers.get("Retry-After"), time.time()) if milliseconds is None else milliseconds / 1000


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
