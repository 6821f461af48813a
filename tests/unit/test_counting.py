"""Estimates of tokens: learnt from what providers report, or counted by a tokenizer."""

import random

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from benchmarks.mock_spec import reply_tokens
from benchmarks.mock_wire import usage_of
from deployments.counting import Counting
from deployments.policies import Record
from domain.generation import GenerationRequest
from domain.message import Usage
from tests.unit.policies_world import Wire, World, route_of

WORDS = [
    *("where", "is", "my", "order", "number", "parcel", "delivery", "tomorrow", "please"),
    *("could", "you", "tell", "me", "when", "it", "will", "arrive"),
]


def request_of(random, messages=3):
    contents = [" ".join(random.choices(WORDS, k=random.randint(1, 60))) for _ in range(messages)]
    return GenerationRequest("t", "turn", 1, "m", [{"role": "user", "content": content} for content in contents])


def record_of(request, route, tokens, usage, chunk=3):
    """A whole answer, several tokens a piece."""
    received = ["".join(tokens[start : start + chunk]) for start in range(0, len(tokens), chunk)]
    return Record(
        route, request, "first", error=None, usage=usage, received=received, chunks=len(received), first=1.0, sent=True
    )


def cut(record, tokens):
    return Record(record.route, record.request, "first", received=["".join(tokens)], chunks=1, first=1.0, sent=True)


def mocked(random, route):
    request = request_of(random, random.randint(1, 8))
    tokens = reply_tokens(str(random.random()), random.randint(1, 300))
    return record_of(request, route, tokens, Usage(**usage_of(request.messages, len(tokens)))), tokens


def test_an_image_costs_its_place_in_the_queue_no_more_than_its_tokens():
    world = World(Wire([]))
    words, image = "w" * 400, {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4_000_000}}
    plain, parts = world.call(content=words), world.call(content=[{"type": "text", "text": words}])
    assert world.counting.cost(parts) == world.counting.cost(plain)
    both = world.call(content=[{"type": "text", "text": words}, image, image])
    assert world.counting.cost(both) == world.counting.cost(plain) + 2000


def test_after_few_calls_the_estimates_are_within_half_a_percent_of_what_the_provider_counts():
    dice, counting, route = random.Random(1), Counting(), route_of()
    for _ in range(8):
        counting.learn(mocked(dice, route)[0])
    off, total = 0, 0
    for _ in range(100):
        record, tokens = mocked(dice, route)
        said = tokens[: dice.randint(1, len(tokens))]
        attempt = counting.attempt(cut(record, said))
        assert attempt.estimated
        assert abs(attempt.usage.completion_tokens - len(said)) <= 0.005 * len(said)
        off += abs(attempt.usage.prompt_tokens - record.usage.prompt_tokens)
        off += abs(attempt.usage.completion_tokens - len(said))
        total += record.usage.prompt_tokens + len(said)
    assert off / total <= 0.005


def test_a_stream_that_gives_one_token_a_piece_is_counted_by_its_pieces():
    """Words and bytes say little of these tokens; the number of pieces says all."""
    dice, counting, route = random.Random(2), Counting(), route_of()

    def answer():
        return ["".join(dice.choices("abc ", k=dice.choice((1, 1, 2, 12)))) for _ in range(dice.randint(20, 200))]

    for _ in range(20):
        tokens, request = answer(), request_of(dice)
        counting.learn(record_of(request, route, tokens, Usage(prompt_tokens=9, completion_tokens=len(tokens)), 1))
    for _ in range(20):
        tokens = answer()
        estimate = counting.answer(route, "".join(tokens), len(tokens))
        assert abs(estimate - len(tokens)) <= 0.01 * len(tokens)


def test_a_model_never_heard_of_is_estimated_by_its_provider_and_an_unknown_provider_by_rule():
    dice, counting, route = random.Random(3), Counting(), route_of()
    for _ in range(20):
        counting.learn(mocked(dice, route)[0])
    assert counting.answer(route_of("other"), " t1 t2 t3 t4") == 4
    assert counting.answer(route_of(name="elsewhere"), "four words of text") == pytest.approx(5, abs=1)
    assert counting.answer(route, "") == 0


@pytest.fixture
def tokenizer(tmp_path):
    words = {word: number for number, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_the_models_tokenizer_counts_from_the_first_call_on(tokenizer):
    for place in (tokenizer, tokenizer / "tokenizer.json"):
        counting, route = Counting(), route_of(model={"tokenizer": str(place)})
        counting.load([str(place)])
        assert counting.answer(route, "where, is: my order?!") == 7
        request = GenerationRequest("t", "turn", 1, "m", [{"role": "user", "content": "where is it"}])
        assert counting.prompt(route, request) == 3 + 4


def test_a_tokenizer_that_cannot_be_read_costs_a_warning_and_no_turn(tmp_path, caplog):
    counting, route = Counting(), route_of(model={"tokenizer": str(tmp_path)})
    assert counting.answer(route, "where is it") >= 3
    assert counting.answer(route, "where is it") >= 3
    assert len(caplog.records) == 1


def test_tools_and_what_was_said_before_are_part_of_a_prompt():
    counting, route = Counting(), route_of()
    messages = [{"role": "user", "content": "where is it"}]
    plain = GenerationRequest("t", "turn", 1, "m", messages)
    tools = GenerationRequest("t", "turn", 1, "m", messages, {"tools": [{"type": "function", "name": "search_orders"}]})
    prefixed = GenerationRequest("t", "turn", 1, "m", messages, prefix="it is on its way")
    assert counting.prompt(route, plain) < min(counting.prompt(route, tools), counting.prompt(route, prefixed))
