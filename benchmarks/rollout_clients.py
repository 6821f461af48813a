"""Clients that stream one reply after another while code is replaced: with this service's protocol, and without any."""

import asyncio
import dataclasses
import itertools
import random
import time

import aiohttp
import orjson

from benchmarks.comparison import expected_text
from benchmarks.follow import FINAL
from benchmarks.targets import ChatCompletions, data_of

GAP_MS = 20
LENGTHS = (50, 1000)  # tokens of a reply: 1 to 20 s
LOST = (aiohttp.ClientError, TimeoutError, OSError)
BROKEN = 5  # connections in a row without an answer, after which a client gives up


class Refused(Exception):
    """An answer that is no reply: its status, and what it says first."""

    @classmethod
    async def of(cls, answer: aiohttp.ClientResponse) -> "Refused":
        return cls(f"{answer.status} {(await answer.text())[:100]!r}")


@dataclasses.dataclass(slots=True)
class Seen:
    """`failed`: replies that a client did not get as the provider said them. `again`: answers that said when to come
    again. `repeated`: messages sent once more under their key, after a broken connection. `resumed`: streams that
    broke and went on. `longest`: seconds without a byte, of replies that were got."""

    replies: int = 0
    failed: int = 0
    again: int = 0
    repeated: int = 0
    resumed: int = 0
    longest: float = 0.0
    why: dict[str, int] = dataclasses.field(default_factory=dict)

    def fail(self, why: str) -> None:
        self.failed += 1
        self.why[why] = self.why.get(why, 0) + 1


async def work(target: ChatCompletions, clients: int, stop: asyncio.Event, seed: int) -> Seen:
    """Each client begins a reply when its last one has ended, until `stop`."""
    seen = Seen()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await asyncio.gather(*(_client(session, target, f"{seed}/{n}", stop, seen) for n in range(clients)))
    return seen


async def _client(
    session: aiohttp.ClientSession, target: ChatCompletions, name: str, stop: asyncio.Event, seen: Seen
) -> None:
    drawn = random.Random(name)
    thread = await target.open_thread(session)
    for number in itertools.count():
        if stop.is_set():
            return
        prompt, tokens = f"{name} asks {number}", drawn.randint(*LENGTHS)
        seen.replies += 1
        try:
            ask = _kept if target.keeps else _plain
            text = await ask(session, target, thread, prompt, tokens, seen)
        except Refused as error:
            seen.fail(str(error))
            await asyncio.sleep(0.5)
        except LOST as error:
            seen.fail(type(error).__name__)
            await asyncio.sleep(0.5)
        else:
            if text != expected_text(prompt, tokens):
                seen.fail("a reply that is cut short")


async def _plain(
    session: aiohttp.ClientSession, target: ChatCompletions, thread: str, prompt: str, tokens: int, seen: Seen
) -> str:
    asked = target.request(f"mock,n={tokens},itl={GAP_MS}", prompt, thread, streamed=True)
    async with session.post(asked.url, headers=asked.headers, data=asked.body) as answer:
        if answer.status != 200:
            raise await Refused.of(answer)
        text, last = "", time.monotonic()
        async for line in answer.content:
            last = _heard(seen, last)
            text += target.text_of_event(line)
        return text


async def _kept(
    session: aiohttp.ClientSession, target: ChatCompletions, thread: str, prompt: str, tokens: int, seen: Seen
) -> str:
    """As docs/api.md asks of a client: a key, `retry-after`, and `Last-Event-ID`."""
    root = f"{target.conversations}".removesuffix("/conversations")
    body = {"content": prompt, "model": f"mock,n={tokens},itl={GAP_MS}", "stream": True}
    headers = {"authorization": f"Bearer {target.key}", "idempotency-key": prompt}
    text, last_id, last, broken = "", "", time.monotonic(), 0
    while True:
        if last_id:
            seen.resumed += 1
            url = f"{root}/turns/{last_id.split('/')[0]}/events"
            request = session.get(url, headers={**headers, "last-event-id": last_id})
        else:
            request = session.post(f"{target.conversations}/{thread}/messages", headers=headers, json=body)
        try:
            async with request as answer:
                if answer.status in (429, 503) and "retry-after" in answer.headers:
                    seen.again += 1
                    await asyncio.sleep(float(answer.headers["retry-after"]))
                    continue
                if answer.status != 200:
                    raise await Refused.of(answer)
                async for line in answer.content:
                    last = _heard(seen, last)
                    if not (data := data_of(line)):
                        continue
                    event = orjson.loads(data)
                    last_id = f"{event['turn_id']}/{event['attempt']}/{event['n']}"
                    text = "" if event["type"] == "turn.reset" else text + event.get("text", "")
                    if event["type"] in FINAL:
                        return text
        except LOST:
            if not last_id:  # whether it was taken is not known: it is asked again under its key
                seen.repeated += 1
                if (broken := broken + 1) > BROKEN:
                    raise
        await asyncio.sleep(0.05)


def _heard(seen: Seen, last: float) -> float:
    now = time.monotonic()
    seen.longest = max(seen.longest, now - last)
    return now
