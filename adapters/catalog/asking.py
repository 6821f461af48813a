"""Asks shops' services: within a time, a few questions at once, again after a failure, and for a while not at all
where nothing but failures come."""

import asyncio
import logging
import random
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adapters.catalog.contract import WrongAnswer, error_code
from adapters.catalog.questions import Question
from adapters.outgoing import Answered, AnswerTooLarge, ForbiddenUrl, Outgoing, OutgoingFailed
from adapters.posting import retry_after
from domain.circuit import Circuit, State
from domain.errors import NotFound
from domain.model import Breaker
from domain.products import CatalogueUnavailable

log = logging.getLogger("brain.catalogue")

LIMIT = 2 * 1024 * 1024  # bytes of an answer
CONNECT = 2.0  # seconds
TRIES = 3
PAUSE = 0.1  # seconds before the second try, at the most; three times as long before each further one
AT_ONCE = 16  # questions that one tenant's service is asked
WAITING = 256  # questions that wait for others to end
REMEMBERED = 10_000  # tenants
LONGEST_URL = 8_000  # characters
FRESH, FRESHEST = 30.0, 3600.0  # seconds: where the service does not say, and at the most
BREAKER = Breaker(failures=5, window=30, open=5)
_MAX_AGE = re.compile(r"(?:^|,)\s*max-age\s*=\s*\"?(\d{1,9})\"?\s*(?:,|$)")


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """`headers`: that say who asks. `timeout`: seconds for an answer, with all tries. `version`: another one where any
    of it is another."""

    url: str
    headers: Mapping[str, str]
    timeout: float
    version: str


@dataclass(frozen=True, slots=True)
class Given:
    """`body`: None where what was known still holds. `fresh`: seconds for which it holds; None: it must not be kept."""

    body: bytes | None
    etag: str | None
    fresh: float | None


@dataclass(slots=True)
class _Line:
    """To one tenant's service."""

    version: str
    circuit: Circuit
    room: asyncio.Semaphore
    waiting: int = 0


class Asking:
    """`outgoing`: open, and with `LIMIT` and `CONNECT`. Circuits are this process's own."""

    def __init__(
        self,
        outgoing: Outgoing,
        breaker: Breaker = BREAKER,
        at_once: int = AT_ONCE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outgoing, self._breaker, self._at_once, self._monotonic = outgoing, breaker, at_once, monotonic
        self._lines: OrderedDict[str, _Line] = OrderedDict()

    def state(self, tenant: str) -> State:
        line = self._lines.get(tenant)
        return State.CLOSED if line is None else line.circuit.state(self._monotonic())

    async def ask(self, tenant: str, endpoint: Endpoint, question: Question, etag: str | None = None) -> Given:
        """Raises `NotFound`, and `CatalogueUnavailable` with a word why."""
        line = self._line(tenant, endpoint)
        if len(endpoint.url) + len(question.path) > LONGEST_URL:
            raise CatalogueUnavailable("the question is too long for the catalogue's service")
        if line.waiting >= WAITING:
            raise CatalogueUnavailable("too many questions wait for the catalogue's service")
        until = time.monotonic() + endpoint.timeout
        line.waiting += 1
        try:
            async with asyncio.timeout(endpoint.timeout):
                await line.room.acquire()
        except TimeoutError:
            raise CatalogueUnavailable("the catalogue's service is busy with other questions") from None
        finally:
            line.waiting -= 1
        try:
            return _given(await self._answer(line, endpoint, question, etag, until))
        except WrongAnswer as error:
            log.warning("tenant %s: %s", tenant, error)
            raise
        finally:
            line.room.release()

    async def _answer(
        self, line: _Line, endpoint: Endpoint, question: Question, etag: str | None, until: float
    ) -> Answered:
        """What is no failure of the service, or of the way to it."""
        headers = {"accept": "application/json", **endpoint.headers}
        if question.body is not None:
            headers["content-type"] = "application/json"
        if etag is not None:
            headers["if-none-match"] = etag
        pause, why = PAUSE, ""
        for attempt in range(TRIES):
            left = until - time.monotonic()
            if attempt:
                wait = pause * random.uniform(0.5, 1)
                if wait >= left:
                    break
                await asyncio.sleep(wait)
                left -= wait
                pause *= 3
            try:
                answer = await self._once(line, endpoint, question, headers, max(left, 0.001))
            except OutgoingFailed as error:
                why = str(error)
                continue
            if answer.status < 500 and answer.status != 429:
                return answer
            why = f"it answered HTTP {answer.status}"
            pause = max(pause, retry_after(answer.headers.get("retry-after"), time.time()) or 0)
        raise CatalogueUnavailable(f"the catalogue's service cannot be used: {why}")

    async def _once(
        self, line: _Line, endpoint: Endpoint, question: Question, headers: Mapping[str, str], left: float
    ) -> Answered:
        circuit, probe = line.circuit, _enter(line.circuit, self._monotonic())
        method = "GET" if question.body is None else "POST"
        works: bool | None = None
        try:
            answer = await self._outgoing.request(method, endpoint.url + question.path, headers, question.body, left)
            works = answer.status < 500
            return answer
        except AnswerTooLarge:
            works = True
            raise WrongAnswer.at("the answer", f"more than {LIMIT} bytes") from None
        except ForbiddenUrl as error:
            raise CatalogueUnavailable(f"the catalogue's URL must not be asked: {error}") from None
        except OutgoingFailed:
            works = False
            raise
        finally:
            _learn(circuit, probe, works, self._monotonic())

    def _line(self, tenant: str, endpoint: Endpoint) -> _Line:
        line = self._lines.get(tenant)
        if line is None or line.version != endpoint.version:
            line = _Line(endpoint.version, Circuit(self._breaker), asyncio.Semaphore(self._at_once))
            self._lines[tenant] = line
            if len(self._lines) > REMEMBERED:
                self._lines.popitem(last=False)
        self._lines.move_to_end(tenant)
        return line


def _enter(circuit: Circuit, now: float) -> bool:
    """Whether the question is a probe."""
    state = circuit.state(now)
    if state is State.OPEN or (state is State.HALF_OPEN and circuit.probing):
        raise CatalogueUnavailable("the catalogue's service has failed several times and is left alone for a while")
    circuit.probing = state is State.HALF_OPEN
    return circuit.probing


def _learn(circuit: Circuit, probe: bool, works: bool | None, now: float) -> None:
    """`works`: None where nobody can tell."""
    if probe:
        circuit.probing = False
    if works is None:
        return
    if works:
        if probe:
            circuit.close(now)
        circuit.succeeded(now)
    elif probe:
        circuit.open(now, now + circuit.settings.open)
    else:
        circuit.failed(now)


def _given(answer: Answered) -> Given:
    status = answer.status
    if status == 200 or status == 304:
        return Given(answer.body if status == 200 else None, answer.headers.get("etag"), _fresh(answer))
    if status == 404 and error_code(answer.body) == "not_found":
        raise NotFound("there is no such product")
    if status in (401, 403):
        raise CatalogueUnavailable(f"the catalogue's service does not let us in (HTTP {status})")
    if 300 <= status < 400:
        raise CatalogueUnavailable(f"the catalogue's service leads elsewhere (HTTP {status}), which is not followed")
    raise CatalogueUnavailable(f"the catalogue's service refuses the question (HTTP {status})")


def _fresh(answer: Answered) -> float | None:
    """By `Cache-Control` (RFC 9111, 5.2.2)."""
    said = answer.headers.get("cache-control", "").lower()
    words = {one.strip() for one in said.split(",")}
    if words & {"no-store", "no-cache"}:
        return None
    found = _MAX_AGE.search(said)
    return min(float(found[1]), FRESHEST) if found else FRESH
