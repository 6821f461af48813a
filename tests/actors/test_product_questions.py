"""A hundred questions to a shop, answered by the built-in model in whole turns; Postgres and Redis are real."""

import pytest

from benchmarks.products.questions import QUESTIONS
from benchmarks.products.shop import TAU2, tau2
from domain.model import SCRIPTED
from storage.products import PostgresProducts
from tests.actors.test_products import Shopper, key  # noqa: F401 - a fixture
from tests.storage.conftest import make_conversation, make_send

RIGHT = 95


@pytest.mark.skipif(not TAU2.exists(), reason=f"{TAU2} is missing: BRAIN_EVAL_DATA names its folder")
async def test_questions_to_a_shop_are_answered_right(world, key, database_url):  # noqa: F811
    world.products, world.classifier = PostgresProducts(world.pool), Shopper()
    await world.products.put(key.tenant, tau2())
    host = await world.host(products_timeout=10)
    wrong = []
    for question in QUESTIONS:
        asked, answer = make_conversation(database_url, key.tenant), ""
        for text in (*question.earlier, question.text):
            ended = await host.send(make_send(asked, text, wait=True, model=SCRIPTED))
            answer = ended.message.content
        claims = (await world.trace(key.tenant, ended.turn.id))["products"]["claims"]
        problems = question.problems(answer) + [f"claims {one}" for one in claims["wrong"]]
        wrong += [f"{question.text}: {problems}\n{answer}"] if problems else []
    assert len(QUESTIONS) == 100 and len(QUESTIONS) - len(wrong) >= RIGHT, "\n\n".join(wrong)
