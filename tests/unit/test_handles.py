"""Calls of other deployments as the ports make them."""

import asyncio

from ray.serve.context import _get_serve_request_context, _RequestContext, _serve_request_context

from deployments.handles import ask


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
