"""The service as commands use it: a few calls of the native API."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from domain.events import Event
from serve_app.cli.turn_events import BROKEN, BUSY, Busy, Patience, Sleep, follow, reason_of
from serve_app.embedded.refusal import Refusal

CONNECT, SILENCE = 5.0, 45.0  # seconds; an open stream says something every 15 s


class Client:
    """Calls the service at `url` between `open` and `close`. `tell` hears when a broken connection is tried again.

    Every method raises `Refusal`, one line for a person.
    """

    def __init__(self, url: str, api_key: str, tell: Callable[[str], None], sleep: Sleep = asyncio.sleep) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise Refusal(f"{url!r} is not the address of a service: give one like http://127.0.0.1:8000")
        if not api_key.isascii() or not api_key.isprintable():
            raise Refusal("this is not an API key: it has characters that no key has")
        self.url, self._key, self._tell, self._sleep = url.rstrip("/"), api_key, tell, sleep

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            headers={"authorization": f"Bearer {self._key}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE),
        )

    async def close(self) -> None:
        await self._session.close()

    async def models(self) -> list[str]:
        return [model["id"] for model in (await self.call("GET", "/models?limit=100"))["data"]]

    async def check_model(self, model: str) -> None:
        await self.call("GET", f"/models/{quote(model)}")

    async def create_conversation(self) -> str:
        patience, key = self._patience(), _key()
        while True:
            try:
                return str((await self._once("POST", "/conversations", json={}, headers=key))["id"])
            except Busy as error:
                await patience.failed(error.reason, error.retry_after)
            except BROKEN as error:
                await patience.failed(self._unreachable(error))

    async def recent(self, conversation: str, limit: int = 20) -> list[dict[str, Any]]:
        """The conversation's last messages, the oldest first."""
        path = f"/conversations/{quote(conversation, safe='')}/messages?order=desc&limit={limit}"
        return list(reversed((await self.call("GET", path))["data"]))

    async def turn(self, turn_id: str) -> dict[str, Any]:
        return await self.call("GET", f"/turns/{turn_id}")

    async def cancel(self, turn_id: str) -> dict[str, Any]:
        """Cancel the turn; gives it as it then is."""
        return await self.call("POST", f"/turns/{turn_id}/cancel")

    def send(self, conversation: str, content: str, model: str) -> AsyncGenerator[Event, None]:
        """Send a message and read its turn's events. Its key makes a repeated POST the same message."""
        path, key = f"/conversations/{conversation}/messages", _key()
        body = {"content": content, "model": model, "stream": True}

        async def open_stream(last: Event | None) -> aiohttp.ClientResponse:
            if last is None:
                return await self._open("POST", path, json=body, headers=key)
            return await self._resume(last.turn_id, last)

        return follow(open_stream, self._patience())

    def follow(self, turn_id: str) -> AsyncGenerator[Event, None]:
        """The events of a turn from its beginning."""
        return follow(lambda last: self._resume(turn_id, last), self._patience())

    async def _resume(self, turn_id: str, last: Event | None) -> aiohttp.ClientResponse:
        headers = {"last-event-id": last.id} if last is not None else {}
        return await self._open("GET", f"/turns/{turn_id}/events", headers=headers)

    async def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """One try at any call below `/api/v1`; `options` as of aiohttp's requests."""
        try:
            return await self._once(method, path, **options)
        except Busy as error:
            raise Refusal(f"{error.reason}: try again later, or name another address with --url") from None
        except BROKEN as error:
            raise Refusal(f"{self._unreachable(error)}: start one with `brain up`, or name it with --url") from None

    async def download(self, method: str, path: str) -> aiohttp.ClientResponse:
        """As `call`, for an answer that is no single JSON object: its body is still to read."""
        try:
            return await self._open(method, path)
        except Busy as error:
            raise Refusal(f"{error.reason}: try again later, or name another address with --url") from None
        except BROKEN as error:
            raise Refusal(f"{self._unreachable(error)}: start one with `brain up`, or name it with --url") from None

    async def _once(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = await self._open(method, path, **options)
        try:
            body = await response.json(content_type=None)
        except ValueError:
            body = None
        finally:
            response.release()
        if not isinstance(body, dict):
            raise Busy(f"{self.url}: answered {response.status}, not as the Brain does")
        return body

    async def _open(self, method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        """A response with its body still to read. Raises `Busy`, `Refusal`, or one of BROKEN."""
        response = await self._session.request(
            method, f"{self.url}/api/v1{path}", allow_redirects=False, raise_for_status=False, **options
        )
        if response.status in (200, 201, 202):
            return response
        async with response:
            raise await self._refusal(response)

    async def _refusal(self, response: aiohttp.ClientResponse) -> Exception:
        try:
            error = (await response.json(content_type=None))["error"]
            words, code = str(error["message"]), error.get("code")
        except (ValueError, LookupError, TypeError):
            words, code = "", None
        if response.status in BUSY or not words:  # without words: a balancer that knows of no replica at the moment
            after = response.headers.get("retry-after", "")
            reason = words or f"answered {response.status}, not as the Brain does"
            return Busy(f"{self.url}: {reason}", float(after) if after.isdigit() else 0.0)
        if response.status == 401 and code != "invalid_credentials":  # those are of the body
            return Refusal(f"{self.url} does not accept this API key: give another with --api-key or BRAIN_API_KEY")
        return Refusal(words)

    def _unreachable(self, error: BaseException) -> str:
        return f"no service answers at {self.url} ({reason_of(error)})"

    def _patience(self) -> Patience:
        return Patience(self._tell, self._sleep)


def _key() -> dict[str, str]:
    return {"idempotency-key": uuid.uuid4().hex}
