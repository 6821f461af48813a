"""How one system is asked, and how the text is found in its answers."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol

import aiohttp
import orjson


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One POST, ready to be sent."""

    url: str
    headers: dict[str, str]
    body: bytes


class Target(Protocol):
    """One system's API. `thread` is what `open_thread` returned, or "" for a system that keeps nothing."""

    @property
    def keeps(self) -> bool:
        """Whether turns belong to a conversation that is kept."""

    async def open_thread(self, session: aiohttp.ClientSession) -> str:
        """Make a conversation; called before a client's first request and again every few turns."""

    def request(self, model: str, prompt: str, thread: str, streamed: bool) -> Request:
        """The request for one reply to `prompt`."""

    def text_of_event(self, event: bytes) -> str:
        """Text that one server-sent event (its lines, without the blank one) adds to the reply."""

    def text_of_body(self, body: bytes) -> str:
        """Text of a whole reply."""

    def complete(self, body: bytes) -> bool:
        """Whether a stream that ended was ended on purpose."""


def events(body: bytes) -> Iterator[bytes]:
    """The complete server-sent events in `body`."""
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n")
    yield from body.split(b"\n\n")[:-1]


def data_of(event: bytes) -> bytes:
    """The event's data; empty for comments. The systems measured here send one data line an event."""
    at = event.find(b"data:")
    return event[at + 5 : end if (end := event.find(b"\n", at)) > 0 else None].strip() if at >= 0 else b""


@dataclasses.dataclass(frozen=True, slots=True)
class ChatCompletions:
    """Any OpenAI-compatible server; with `conversations` set, the service's own kept conversations.

    `name` gives this server's name for the provider's model.
    """

    base_url: str
    key: str
    name: Callable[[str], str] = str
    conversations: str | None = None

    @property
    def keeps(self) -> bool:
        """See Target."""
        return self.conversations is not None

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}", "content-type": "application/json"}

    async def open_thread(self, session: aiohttp.ClientSession) -> str:
        if self.conversations is None:
            return ""
        async with session.post(self.conversations, headers=self._headers(), data=b"{}") as answer:
            body = await answer.read()
            if answer.status != 201:
                raise RuntimeError(f"{self.conversations}: {answer.status} {body[:300]!r}")
            return str(orjson.loads(body)["id"])

    def request(self, model: str, prompt: str, thread: str, streamed: bool) -> Request:
        body = {"model": self.name(model), "messages": [{"role": "user", "content": prompt}], "stream": streamed}
        headers = self._headers() | ({"x-conversation-id": thread} if thread else {})
        return Request(f"{self.base_url}/chat/completions", headers, orjson.dumps(body))

    def text_of_event(self, event: bytes) -> str:
        data = data_of(event)
        if not data.startswith(b"{"):
            return ""
        chunk = orjson.loads(data)
        if "error" in chunk:
            raise RuntimeError(f"error in the stream: {chunk['error']}")
        return (chunk["choices"][0]["delta"].get("content") or "") if chunk["choices"] else ""

    def text_of_body(self, body: bytes) -> str:
        return str(orjson.loads(body)["choices"][0]["message"]["content"])

    def complete(self, body: bytes) -> bool:
        return b"[DONE]" in body[-40:]


@dataclasses.dataclass(frozen=True, slots=True)
class AgentProtocol:
    """Aegra: runs of a graph on a thread."""

    url: str
    assistant: str
    keeps: bool = True

    async def open_thread(self, session: aiohttp.ClientSession) -> str:
        async with session.post(f"{self.url}/threads", json={}) as answer:
            answer.raise_for_status()
            return str((await answer.json())["thread_id"])

    def request(self, model: str, prompt: str, thread: str, streamed: bool) -> Request:
        body = {
            "assistant_id": self.assistant,
            "input": {"messages": [{"role": "user", "content": prompt}]},
            "config": {"configurable": {"model": model}},
            "stream_mode": ["messages-tuple" if streamed else "values"],
        }
        url = f"{self.url}/threads/{thread}/runs/{'stream' if streamed else 'wait'}"
        return Request(url, {"content-type": "application/json"}, orjson.dumps(body))

    def text_of_event(self, event: bytes) -> str:
        if event.startswith(b"event: error"):
            raise RuntimeError(f"error in the stream: {event[:300]!r}")
        if not event.startswith(b"event: messages"):
            return ""
        message = orjson.loads(data_of(event))[0]
        return str(message["content"]) if message.get("type") == "AIMessageChunk" else ""

    def text_of_body(self, body: bytes) -> str:
        return str(orjson.loads(body)["messages"][-1]["content"])

    def complete(self, body: bytes) -> bool:
        return b'"chunk_position":"last"' in body[-3000:]  # it sends no closing event
