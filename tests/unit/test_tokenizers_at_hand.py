"""Models' own tokenizers: read beside the event loop, and never a turn's failure."""

import threading

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from deployments import tokenizers_at_hand
from deployments.tokenizers_at_hand import ModelTokenizers
from domain.context import ESTIMATE, Remembered, build_prompt
from domain.model import Model, parse_catalog
from tests.conftest import wait_until


@pytest.fixture
def folder(tmp_path):
    words = {word: place for place, word in enumerate(["[UNK]", "a", "lamp", "please"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.enable_truncation(2)
    (tmp_path / "little").mkdir()
    tokenizer.save(str(tmp_path / "little" / "tokenizer.json"))
    return tmp_path / "little"


def counted(counters, model):
    return wait_until(lambda: (found := counters.counter(model)) is not ESTIMATE and found, what="the tokenizer")


@pytest.mark.parametrize("place", ["{}", "{}/tokenizer.json"])
def test_a_models_tokenizer_counts_its_prompts(folder, place):
    model = Model(id="m", tokenizer=place.format(folder))
    counter = counted(ModelTokenizers(), model)
    assert counter.count("a lamp , please") == 4, "however it was told to truncate"
    assert counter.name.startswith("little@") and "/" not in counter.name
    prompt = build_prompt(None, [Remembered.of(1, 1, "user", "a lamp please")], 1, 1, 100, counter=counter)
    assert (prompt.tokens, prompt.account["counted_by"]) == (3 + 4, counter.name)


def test_a_vllm_model_is_counted_by_the_tokenizer_in_its_folder(folder):
    catalog = parse_catalog(
        {
            "providers": [
                {"name": "local", "kind": "vllm", "models": [{"id": "m", "vllm": {"source": str(folder)}}]},
                {"name": "hosted", "base_url": "http://127.0.0.1:9/v1", "models": [{"id": "gpt-4o"}]},
            ]
        }
    )
    counters = ModelTokenizers()
    counters.load(catalog)
    assert counted(counters, catalog.find("m").model).count("a lamp") == 2
    assert counters.counter(catalog.find("gpt-4o").model) is ESTIMATE


def test_until_it_is_read_and_where_it_cannot_be_the_model_is_estimated(folder, monkeypatch, caplog):
    go, done = threading.Event(), threading.Event()
    read = tokenizers_at_hand._tokenized

    def slow(place):
        go.wait(30)
        try:
            return read(place)
        finally:
            done.set()

    monkeypatch.setattr(tokenizers_at_hand, "_tokenized", slow)
    counters, model = ModelTokenizers(), Model(id="m", tokenizer=str(folder))
    assert counters.counter(model) is ESTIMATE, "asking waits for nothing"
    go.set()
    counted(counters, model)
    for place in (str(folder / "nothing.json"), "no-such-org/no-such-model"):
        done.clear()
        assert counters.counter(Model(id="m", tokenizer=place)) is ESTIMATE
        assert done.wait(30)
        wait_until(lambda place=place: place in caplog.text, what="the warning")
        assert counters.counter(Model(id="m", tokenizer=place)) is ESTIMATE
