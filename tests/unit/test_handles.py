"""Calls of other deployments as the ports make them."""

import asyncio
from array import array

import pytest
from ray.serve.context import _get_serve_request_context, _RequestContext, _serve_request_context

from deployments.handles import HandleEmbedder, ask
from domain.commands import Refused
from domain.errors import Unavailable


async def test_calls_made_at_once_while_one_request_is_served_have_no_internal_id_in_common():
    """Serve gives a call without one a fresh id; its router loses one of two waiting calls that share theirs."""
    _serve_request_context.set(_RequestContext(request_id="req", _internal_request_id="one"))
    seen = []

    def call():
        seen.append(_get_serve_request_context())
        return asyncio.sleep(0, "answer")

    assert await asyncio.gather(*(ask(call) for _ in range(2))) == ["answer", "answer"]
    assert [(context.request_id, context._internal_request_id) for context in seen] == [("req", "")] * 2
    assert _get_serve_request_context()._internal_request_id == "one"


class FarEmbedder:
    """A handle whose replica knows the length of a text, and no empty one."""

    def __init__(self):
        self.carried = []
        self.embed_together = self

    def options(self, **_):
        return self

    async def remote(self, texts):
        self.carried.append(len(texts))
        await asyncio.sleep(0)
        return [
            array("f", [len(text), 0.1]) if text else Refused("Unavailable", "an empty text", retryable=True)
            for text in texts
        ]


async def test_messages_that_wait_for_the_embedder_share_a_call():
    far = FarEmbedder()
    embedder = HandleEmbedder(far)
    texts = ["x" * n for n in range(1, 65)]
    vectors = await asyncio.gather(*(embedder.embed(text) for text in texts))
    assert vectors == [array("f", [n, 0.1]).tolist() for n in range(1, 65)]
    assert far.carried == [1] * 8 + [56]


async def test_a_text_that_cannot_be_embedded_does_not_fail_those_that_share_its_call():
    embedder = HandleEmbedder(FarEmbedder())
    found = await asyncio.gather(*(embedder.embed("" if n == 20 else "x") for n in range(64)), return_exceptions=True)
    assert isinstance(found.pop(20), Unavailable)
    assert found == [array("f", [1, 0.1]).tolist()] * 63
    with pytest.raises(Unavailable, match="an empty text"):
        await embedder.embed("")
