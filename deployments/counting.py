"""Counts tokens where a provider does not: by the model's tokenizer, else by what its reported counts have taught.

Several measures of a text (UTF-8 bytes, words, pieces of the stream, the tokenizer's count) are each fitted to the
counts that the provider reports for other calls, by least squares that forget slowly; the one whose own predictions
were off least is used.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Tokenizer

from deployments.policies import Call, Record, name_of
from domain.context import MESSAGE_OVERHEAD
from domain.generation import Attempt, GenerationRequest
from domain.message import Usage
from domain.model import Route

log = logging.getLogger(__name__)

FORGET = 0.99  # weight of a call once another one has been learnt
SMOOTH = 0.2  # of a new error in the running mean
TRUST = 1e-3  # how many squared units of a measure the first guess is worth
ENOUGH = 3  # calls of a model after which its own fits are preferred to its provider's
EVERY = 50, 8  # after so many calls, only each 8th is learnt from
MOST_MODELS = 4096
ANSWER = 256.0  # tokens of an answer of which nothing is known
IMAGE = 1000  # tokens of an image, roughly; its bytes say nothing of them

Texts = Sequence[str]
Measure = Callable[[Texts, int], float]


class Fit:
    """tokens ≈ a · x + b · k, for one measure `x` of a text in `k` messages; `error`: mean relative error so far."""

    def __init__(self, slope: float, error: float, overhead: float) -> None:
        self.error = error
        self._prior = (slope, overhead)
        self._xx = self._xk = self._kk = self._xy = self._ky = 0.0

    def predict(self, x: float, k: float) -> float:
        slope, overhead = self._prior
        xx, kk = self._xx + TRUST, self._kk + TRUST
        xy, ky = self._xy + TRUST * slope, self._ky + TRUST * overhead
        determinant = xx * kk - self._xk * self._xk
        return max(((kk * xy - self._xk * ky) * x + (xx * ky - self._xk * xy) * k) / determinant, 0.0)

    def learn(self, x: float, k: float, tokens: float) -> None:
        off = abs(self.predict(x, k) - tokens) / max(tokens, 1.0)
        self.error += SMOOTH * (off - self.error)
        x, k = x / max(tokens, 1.0), k / max(tokens, 1.0)  # it is the relative error that counts
        self._xx, self._xk, self._kk = FORGET * self._xx + x * x, FORGET * self._xk + x * k, FORGET * self._kk + k * k
        self._xy, self._ky = FORGET * self._xy + x, FORGET * self._ky + k


def _bytes(texts: Texts, chunks: int) -> float:
    return sum(len(text.encode()) for text in texts)


def _words(texts: Texts, chunks: int) -> float:
    return sum(len(text.split()) for text in texts)


def _chunks(texts: Texts, chunks: int) -> float:
    return chunks


# Each measure with the first guess of its slope, and of its error: four bytes or three quarters of a word a token.
PROMPT: dict[str, tuple[Measure, float, float]] = {"bytes": (_bytes, 0.25, 0.3), "words": (_words, 4 / 3, 0.35)}
ANSWERS = {**PROMPT, "chunks": (_chunks, 1.0, 0.4)}


class Fits:
    """What is known of one model, or of all models of a provider."""

    def __init__(self) -> None:
        self.calls = 0
        self.mean = ANSWER
        self.prompt = {name: Fit(slope, error, MESSAGE_OVERHEAD) for name, (_, slope, error) in PROMPT.items()}
        self.answer = {name: Fit(slope, error, 0.0) for name, (_, slope, error) in ANSWERS.items()}
        self.prompt["tokenizer"] = Fit(1.0, 0.05, MESSAGE_OVERHEAD)
        self.answer["tokenizer"] = Fit(1.0, 0.01, 0.0)


class Counting:
    """Estimates of one process, learnt from its own calls."""

    def __init__(self) -> None:
        self._fits: OrderedDict[str, Fits] = OrderedDict()
        self._tokenizers: dict[str, Tokenizer | None] = {}

    def learn(self, record: Record) -> None:
        """Take in what a provider reported of a whole answer."""
        usage = record.usage
        if usage is None or record.error is not None or record.why in ("continued", "reattached"):
            return
        route = record.route
        own, shared = self._of(name_of(route)), self._of(route.provider.name + "/")
        for fits in (own, shared):
            fits.calls += 1
            fits.mean += SMOOTH * (usage.completion_tokens - fits.mean)
        if own.calls > EVERY[0] and own.calls % EVERY[1]:
            return
        asked, messages = asked_of(record.request)
        said = ["".join(record.received)]
        for name, x in self._measures(route, PROMPT, asked, 0).items():
            for fits in (own, shared):
                fits.prompt[name].learn(x, messages, usage.prompt_tokens)
        if usage.completion_tokens and record.received:
            for name, x in self._measures(route, ANSWERS, said, record.chunks).items():
                for fits in (own, shared):
                    fits.answer[name].learn(x, 0, usage.completion_tokens)

    def prompt(self, route: Route, request: GenerationRequest) -> int:
        texts, messages = asked_of(request)
        return self._estimate(route, "prompt", self._measures(route, PROMPT, texts, 0), messages)

    def answer(self, route: Route, text: str, chunks: int | None = None) -> int:
        """Tokens of a text that the model said, in so many pieces; at least one where there is any."""
        measures = self._measures(route, ANSWERS, [text], chunks or 0)
        if chunks is None:
            del measures["chunks"]
        return max(self._estimate(route, "answer", measures, 0), 1) if text else 0

    def cost(self, call: Call) -> float:
        """Tokens that a call will take, roughly and cheaply: its place in the queue depends on it."""
        request, fits = call.request, self._known(call.route)
        contents = [message.get("content") for message in request.messages]
        prompt = sum(size_of(content) for content in contents) + len(request.prefix) / 4
        limit = request.parameters.get("max_tokens")
        answer = fits.mean if limit is None else min(fits.mean, float(limit))
        return prompt + MESSAGE_OVERHEAD * len(request.messages) + max(answer, 1.0)

    def attempt(self, record: Record) -> Attempt:
        """The record as the trace tells it. What was refused costs nothing; what was broken off is estimated."""
        usage, estimated = record.usage, False
        if record.merged:
            usage = None
        elif usage is None and (record.received or record.sent):
            estimated = True
            prompt = self.prompt(record.route, record.request)
            completion = self.answer(record.route, "".join(record.received), record.chunks)
            usage = Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
        first, ended = record.first, record.started if record.ended is None else record.ended
        return Attempt(
            model=record.route.id,
            provider=record.route.provider.name,
            status="error" if record.error else "ok",
            error=record.error,
            started_at=record.started_at,
            first_token_ms=None if first is None else (first - record.started) * 1000,
            total_ms=(ended - record.started) * 1000,
            why=record.why,
            waited_ms=record.waited * 1000,
            usage=usage,
            estimated=estimated,
            reply=(record.spoke or record.error is None) and not record.lost,
        )

    def load(self, places: Sequence[str]) -> None:
        """Read these tokenizers (folders or files) from disk; one that cannot be read is left out, with a warning."""
        for place in places:
            if place not in self._tokenizers:
                path = Path(place)
                try:
                    found = Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))
                    found.no_truncation()
                    self._tokenizers[place] = found
                except Exception as error:  # the package raises bare Exceptions
                    log.warning("the tokenizer %s cannot be read: %s", place, error)
                    self._tokenizers[place] = None

    def _measures(
        self, route: Route, measures: dict[str, tuple[Measure, float, float]], texts: Texts, chunks: int
    ) -> dict[str, float]:
        found = {name: measure(texts, chunks) for name, (measure, _, _) in measures.items()}
        if (place := route.model.tokenizer) is not None:
            self.load([place])
            if (tokenizer := self._tokenizers[place]) is not None:
                encoded = tokenizer.encode_batch([text for text in texts if text], add_special_tokens=False)
                found["tokenizer"] = sum(len(one.ids) for one in encoded)
        return found

    def _estimate(self, route: Route, what: str, measures: dict[str, float], messages: int) -> int:
        fits: dict[str, Fit] = getattr(self._known(route), what)
        best = min(measures, key=lambda name: fits[name].error)
        return round(fits[best].predict(measures[best], messages))

    def _known(self, route: Route) -> Fits:
        """The model's own fits once there are enough calls behind them, else its provider's."""
        own, shared = self._fits.get(name_of(route)), self._fits.get(route.provider.name + "/")
        if own is not None and (own.calls >= ENOUGH or shared is None):
            return own
        return shared or Fits()

    def _of(self, key: str) -> Fits:
        fits = self._fits.get(key)
        if fits is None:
            fits = self._fits[key] = Fits()
            if len(self._fits) > MOST_MODELS:
                self._fits.popitem(last=False)
        self._fits.move_to_end(key)
        return fits


def asked_of(request: GenerationRequest) -> tuple[list[str], int]:
    """The texts of a prompt, and its number of messages."""
    texts = [text_of(message) for message in request.messages]
    if request.prefix:
        texts.append(request.prefix)
    messages = len(texts)
    if tools := request.parameters.get("tools"):
        texts.append(orjson.dumps(tools).decode())
    return texts, messages


def size_of(content: Any) -> float:
    """Tokens of a message's content at four characters each, whatever the tokenizer."""
    if not isinstance(content, list):
        return len(str(content or "")) / 4
    parts = [part for part in content if isinstance(part, dict)]
    return sum(len(str(part["text"])) / 4 if part.get("text") is not None else IMAGE for part in parts)


def text_of(message: dict[str, Any]) -> str:
    """What of a message costs tokens, as one text."""
    content = message.get("content")
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    calls = message.get("tool_calls")
    return str(content or "") + (orjson.dumps(calls).decode() if calls else "")
