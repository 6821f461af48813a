"""Intents on a running service: trained over HTTP, used by every replica, through the death of the trainer."""

from collections.abc import Iterator

import pytest
import yaml

from tests.conftest import wait_until
from tests.e2e.intents import ended, everywhere, examples, post, train, version_of
from tests.rollouts.service import Service

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
CLASSIFIER, TRAINER = "IntentClassifier", "IntentTrainer"
REFUND = [
    "I want my money back",
    "refund me please",
    "can I get a refund",
    "return my payment",
    "give me the money back",
]
PARCEL = [
    "where is my parcel",
    "track my package",
    "my delivery is late",
    "has my order shipped",
    "parcel not here yet",
]


BOTH = examples(refund=REFUND, parcel=PARCEL)


@pytest.fixture(scope="module", autouse=True)
def two_classifiers(brain, work_folder, provider, config) -> Iterator[None]:
    """Two replicas; at the end one, and the tenant goes by the shared set again."""
    service = Service(brain, work_folder, provider, yaml.safe_load(config.read_text()), calls=60)
    service.deploy(service.config(replicas={CLASSIFIER: 2}))
    wait_until(lambda: brain.serving(CLASSIFIER, 2), 90, 0.5, what="a second classifier")
    yield
    brain.http.post("/api/v1/intents/rollback", json={"version": 0})
    service.deploy(service.config())
    wait_until(lambda: len(brain.replicas(CLASSIFIER)) == 1, 90, 0.5, what="the way back")


def test_intents_are_trained_classified_evaluated_and_rolled_back(brain):
    first = train(brain.http, BOTH)
    assert first["progress"] == 1 and first["metrics"]["intents"] == 2
    everywhere(brain.http, first["version"])
    found = post(brain.http, "classify", {"text": "please send my money back"})
    assert found["intent"]["name"] == "refund" and found["version"] == first["version"]
    assert [one["name"] for one in found["ranked"]] == ["refund", "parcel"]
    many = post(brain.http, "classify", {"texts": [*REFUND, *PARCEL]})["data"]
    assert [one["intent"]["name"] for one in many] == ["refund"] * 5 + ["parcel"] * 5
    figures = post(brain.http, "evaluate", {"examples": BOTH})
    assert figures["accuracy"] == figures["macro_f1"] == 1 and figures["confusions"] == []

    hours = ["when do you open", "opening hours", "are you open on sunday", "when do you close", "open today"]
    second = train(brain.http, examples(refund=REFUND, hours=hours), effort="first")
    everywhere(brain.http, second["version"])
    assert post(brain.http, "classify", {"text": "are you open now"})["intent"]["name"] == "hours"
    post(brain.http, "rollback", {"version": first["version"]})
    everywhere(brain.http, first["version"])
    assert {one["name"] for one in post(brain.http, "classify", {"text": "are you open now"})["ranked"]} == {
        "refund",
        "parcel",
    }
    post(brain.http, "rollback", {"version": 0})
    everywhere(brain.http, 0)
    post(brain.http, "rollback", {"version": 10_000}, 404)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (examples(refund=REFUND), "2 intents or more are needed"),
        (
            [*BOTH, {"text": REFUND[0], "intent": "parcel"}],
            "example 11 ('I want my money back') is given for two intents: 'refund' and 'parcel'",
        ),
        ([*BOTH, {"text": "", "intent": "parcel"}], "example 11, of intent 'parcel', has no text"),
    ],
)
def test_bad_examples_are_named_and_the_head_goes_on(brain, given, words):
    done = train(brain.http, BOTH, effort="first")
    everywhere(brain.http, done["version"])
    assert words in post(brain.http, "train", {"examples": given}, 422)["error"]["message"]
    assert version_of(brain.http) == done["version"]


def test_a_turn_and_its_message_carry_the_tenants_intent(brain):
    done = train(brain.http, BOTH, effort="first")
    everywhere(brain.http, done["version"])
    conversation = brain.conversation()
    stream = brain.stream(conversation, "where is my parcel").finish()
    [told] = [event for event in stream.events if event["type"] == "turn.intent"]
    assert told["intent"]["name"] == "parcel"
    message = brain.check(conversation)[0]
    assert message["intent"] == told["intent"]
    found = brain.http.get(f"/api/v1/messages/{message['id']}/analysis").json()
    assert found["stored"] and found["version"] == done["version"] and found["intent"]["name"] == "parcel"
    by_intent = brain.http.get("/api/v1/messages", params={"intent": "parcel", "order": "desc"}).json()["data"]
    assert by_intent[0]["id"] == message["id"]
    common = brain.http.get("/api/v1/intents/common").json()["data"]
    assert "parcel" in {one["name"] for one in common}


def test_a_training_goes_on_after_kill_9_of_its_trainer_and_messages_are_answered_meanwhile(brain):
    given = examples(
        **{
            name: [
                f"{text}, {word} number {n}" for text in texts for word in ("item", "thing", "order") for n in range(40)
            ]
            for name, texts in (("refund", REFUND), ("parcel", PARCEL))
        }
    )
    job = post(brain.http, "train", {"examples": given}, 202)["id"]
    path = f"/api/v1/intents/training/{job}"
    wait_until(lambda: brain.http.get(path).json()["status"] == "running", 30, what="the training's begin")
    [trainer] = brain.replicas(TRAINER)
    trainer.kill()
    assert brain.send(brain.conversation(), "hello", model="small").status_code == 200
    done = ended(brain.http, job)
    assert done["status"] == "completed", done
    [(attempt,)] = brain.sql("SELECT attempt FROM brain.intent_trainings WHERE id = %s", job)
    assert attempt >= 2
    made = brain.sql("SELECT effort FROM brain.intent_heads WHERE training_id = %s", job)
    assert sorted(made) in ([("first",)], [("best",), ("first",)])
    everywhere(brain.http, done["version"])
    wait_until(lambda: brain.serving(TRAINER, 1), 60, what="another trainer")


def test_intents_are_a_tenants_own(brain, other_tenant):
    made = brain.http.post("/api/v1/intents", json={"name": "mine", "examples": REFUND})
    assert made.status_code == 201
    assert other_tenant.get(f"/api/v1/intents/{made.json()['id']}").status_code == 404
    assert other_tenant.post("/api/v1/intents/classify", json={"text": "hello"}).json()["version"] == 0
    assert brain.http.delete(f"/api/v1/intents/{made.json()['id']}").status_code == 200
