"""A Brain whose vectors come from a provider: `/v1/embeddings`, and turns whose intent is known by them."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.conftest import free_port
from tests.doubles.embeddings import KEY, EmbeddingsDouble, vector_of
from tests.e2e.brain import Brain
from tests.e2e.intents import examples, post, train

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
DIMENSIONS = 48
REFUND = ["I want my money back", "refund me please", "can I get a refund", "return my payment", "give me the money"]
PARCEL = ["where is my parcel", "track my package", "my delivery is late", "has it shipped", "parcel not here yet"]


@pytest.fixture
def provider() -> Iterator[EmbeddingsDouble]:
    """A provider in a thread of its own, for as long as the Brain needs it."""
    double, ready, loop = EmbeddingsDouble(window=2000), threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        async with double.serving():
            ready.set()
            await double.ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield double
    loop.call_soon_threadsafe(double.ended.set)
    thread.join(10)


def test_a_provider_embeds_for_the_whole_service_and_has_no_layers_to_tune(tmp_path, provider):
    environment = {
        "BRAIN_EMBEDDER_URL": provider.url,
        "BRAIN_EMBEDDER_MODEL": "text-embedding-3-small",
        "BRAIN_EMBEDDER_KEY": KEY,
        "BRAIN_EMBEDDER_DIMENSIONS": str(DIMENSIONS),
    }
    brain = Brain(tmp_path / "data", free_port(), [], environment).start()
    try:
        client = OpenAI(base_url=f"{brain.url}/v1", api_key=brain.key, max_retries=0)
        answer = client.embeddings.create(model="text-embedding-3-small", input=["red shoes", "blue shoes"])
        assert [len(one.embedding) for one in answer.data] == [DIMENSIONS, DIMENSIONS]
        wanted = vector_of("red shoes", DIMENSIONS) / 2
        assert answer.data[0].embedding == pytest.approx(wanted.tolist(), abs=1e-5)
        turn = brain.send(brain.conversation(), "where is my order?").json()
        assert turn["turn"]["status"] == "completed"
        assert turn["user_message"]["intent"] is None or turn["user_message"]["intent"]["name"]
        given = examples(refund=REFUND, parcel=PARCEL)
        done = post(brain.http, "train", {"examples": given, "effort": "tuned", "wait": True})
        assert (done["status"], done["version"], done["error"]["code"]) == ("failed", None, "not_tunable")
        assert done["error"]["param"] == "effort" and "text-embedding-3-small" in done["error"]["message"]
        train(brain.http, given, effort="first")
        texts = [text for call in list(provider.calls) for text in call["input"]]
        assert "where is my order?" in texts, "the classifier asks the provider"
        assert KEY not in brain.log.read_text()
    finally:
        assert brain.stop() == 0
