"""A tenant whose products a service of its own keeps: turns answer from it, and say so where it is down."""

import pytest

from domain.products import Product
from tests.conftest import free_port, wait_until
from tests.doubles.catalogue_service import Shop, catalogues_in_a_thread
from tests.e2e.test_products import asked

pytestmark = pytest.mark.cluster
SOURCE = "/api/v1/catalog/source"
TEXT = "Do you have a red anorak in size M?"
ANORAK = Product(
    id="anorak-red-m",
    title="Skuvoy anorak, red",
    url="https://shop.example/anorak-red-m",
    price="86.25",
    currency="USD",
    stock=4,
    category="Anoraks",
    attributes={"colour": "red", "size": "M"},
)


def test_a_turn_is_answered_from_the_tenants_own_service_and_told_when_it_is_down(brain):
    with catalogues_in_a_thread() as service:
        service.shops["shop"] = shop = Shop(secret="Bearer canary-of-a-shop")
        shop.put(ANORAK)
        auth = {"kind": "bearer", "secret": "canary-of-a-shop"}

        def source(url):
            set_ = brain.http.put(SOURCE, json={"kind": "http", "url": url, "auth": auth, "timeout_ms": 1000})
            assert set_.status_code == 200, set_.text
            assert "canary" not in set_.text

        def answers(conversation, word):
            found = asked(brain, conversation, TEXT)
            return found if word in found["message"]["content"] else None

        try:
            source(service.url("shop"))
            assert brain.http.post(f"{SOURCE}/test").json()["ok"]
            answer = wait_until(lambda: answers(brain.conversation(), "86.25 USD"), what="an answer from the service")
            assert answer["message"]["citations"] == [
                {"type": "product", "id": ANORAK.id, "title": ANORAK.title, "url": ANORAK.url}
            ]
            written = brain.http.put("/api/v1/catalog/products/a", json={"title": "A"})
            assert (written.status_code, written.json()["error"]["code"]) == (409, "catalogue_elsewhere")

            source(f"http://127.0.0.1:{free_port()}")  # where nobody answers
            answer = wait_until(lambda: answers(brain.conversation(), "catalogue"), what="a word about it")
            assert answer["message"]["citations"] == [] and "86.25" not in answer["message"]["content"]
            trace = brain.http.get(f"/api/v1/turns/{answer['turn']['id']}/trace").json()
            assert "catalogue's service" in trace["products"]["problem"]
        finally:
            assert brain.http.delete(SOURCE).status_code == 200
        for log in (brain.log, *brain.data.rglob("*.log")):
            assert b"canary-of-a-shop" not in log.read_bytes()
