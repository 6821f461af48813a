"""A shop's products in the answers of a running Brain: put, asked for, cited, and told in the trace."""

from contextlib import contextmanager

import pytest

from tests.conftest import wait_until

pytestmark = pytest.mark.cluster


def product(colour, size, price, stock=3):
    return {
        "title": f"Lyngen jersey, {colour}",
        "url": f"https://shop.example/jersey-{colour}-{size}",
        "price": price,
        "currency": "USD",
        "stock": stock,
        "category": "Jerseys",
        "group_id": f"jersey-{colour}",
        "attributes": {"colour": colour, "size": size},
    }


SHOP = {
    "jersey-red-s": product("red", "S", 44.5),
    "jersey-red-m": product("red", "M", 45.25),
    "jersey-red-l": product("red", "L", 46, stock=0),
    "jersey-blue-m": product("blue", "M", 52.75),
}


@contextmanager
def shop(brain):
    try:
        for id, one in SHOP.items():
            assert brain.http.put(f"/api/v1/catalog/products/{id}", json=one).status_code == 201
        yield
    finally:
        for id in SHOP:
            brain.http.delete(f"/api/v1/catalog/products/{id}")


def asked(brain, conversation, text):
    answer = brain.send(conversation, text, model="scripted")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_product_question_is_answered_from_the_catalogue_with_citations_and_a_trace(brain):
    with shop(brain):
        text = "Do you have a red jersey under 50 dollars in size M?"

        def right():  # hosts know what a catalogue is made of for some seconds
            found = asked(brain, brain.conversation(), text)
            return found if "45.25 USD" in found["message"]["content"] else None

        answer = wait_until(right, what="an answer from the catalogue")
        assert answer["message"]["citations"] == [
            {
                "type": "product",
                "id": "jersey-red-m",
                "title": "Lyngen jersey, red",
                "url": "https://shop.example/jersey-red-M",
            }
        ]
        assert "44.50" not in answer["message"]["content"]
        trace = brain.http.get(f"/api/v1/turns/{answer['turn']['id']}/trace").json()
        assert [one["id"] for one in trace["sources"]] == ["jersey-red-m"] and trace["timings_ms"]["products"] > 0
        assert trace["products"]["claims"] == {"policy": "flag", "checked": 2, "wrong": [], "corrected": False}
        assert ("products", True) in {(one["kind"], one["included"]) for one in trace["context"]["elements"]}

        def followed():  # by whichever host
            conversation = brain.conversation()
            asked(brain, conversation, text)
            blue = asked(brain, conversation, "and in blue?")
            return (conversation, blue) if "52.75 USD" in blue["message"]["content"] else None

        conversation, blue = wait_until(followed, what="an answer that knows what was asked before")
        assert "none that fits" in blue["message"]["content"]
        dear = asked(brain, conversation, "Is the blue jersey in stock?")
        assert "Yes" in dear["message"]["content"]
        assert [one["id"] for one in dear["message"]["citations"]] == ["jersey-blue-m"]

        plain = asked(brain, conversation, "Thank you, goodbye!")
        assert plain["message"]["citations"] == []
        assert brain.http.get(f"/api/v1/turns/{plain['turn']['id']}/trace").json()["sources"] == []
