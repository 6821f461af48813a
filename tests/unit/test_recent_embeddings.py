"""One forward pass a message: what was embedded to be understood is not embedded again to be indexed."""

import asyncio

import numpy as np
import pytest

from deployments.embedder import Embedder
from deployments.recent_embeddings import RecentEmbeddings
from domain.errors import OtherEmbedder
from domain.indexing import identity
from serve_app.embedders import HeldTo


def made(log):
    async def embed_many(texts):
        log.append(list(texts))
        return [[float(len(text)), 0.5] for text in texts]

    return embed_many


async def test_a_kept_vector_is_given_out_once_and_in_its_place():
    recent, log = RecentEmbeddings(), []
    recent.keep("b", [0.25, 0.125])
    assert await recent.embed(["aa", "b", "ccc"], made(log)) == [[2.0, 0.5], [0.25, 0.125], [3.0, 0.5]]
    assert await recent.embed(["b"], made(log)) == [[1.0, 0.5]]
    assert log == [["aa", "ccc"], ["b"]]
    assert recent.spared == 1


async def test_equal_texts_in_one_call_have_a_vector_each():
    recent, log = RecentEmbeddings(), []
    recent.keep("b", [0.25, 0.125])
    assert await recent.embed(["b", "b"], made(log)) == [[0.25, 0.125], [1.0, 0.5]]


async def test_the_oldest_go_first():
    recent, log = RecentEmbeddings(most=2), []
    for n in range(3):
        recent.keep(str(n), [float(n), 0.0])
    await recent.embed(["0", "1", "2"], made(log))
    assert log == [["0"]]


async def test_a_half_character_can_be_kept():
    recent = RecentEmbeddings()
    recent.keep("\ud800", [1.0])
    assert await recent.embed(["\ud800"], made([])) == [[1.0]]


async def test_the_real_embedder_gives_the_same_vector_either_way_and_only_under_its_name():
    recent = RecentEmbeddings()
    embedder = await asyncio.to_thread(Embedder, "packaged")
    held, name = HeldTo(embedder, recent), identity(await embedder.describe())
    recent.keep("where is my order", await embedder.embed("where is my order"))
    kept, new = await held.embed_for(name, ["where is my order", "hello"])
    assert recent.spared == 1
    np.testing.assert_allclose(kept, await embedder.embed("where is my order"), atol=1e-6)
    np.testing.assert_allclose(new, await embedder.embed("hello"), atol=1e-4)
    with pytest.raises(OtherEmbedder, match=rf"indexed by other@1, and the embedder is {name}"):
        await held.embed_for("other@1", ["x"])
