"""Training, answers and the artefact, on a small world without a model."""

import io
import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deployments.understanding import Head, kernel_ridge, train
from deployments.understanding.grams import BUCKETS
from domain.errors import InvalidExamples
from domain.understanding import Example, IntentModel
from tests.unit.understanding.toy import DIMENSIONS, encode, examples


@pytest.fixture(scope="module", params=["one view", "two views"])
def head(request: pytest.FixtureRequest) -> Head:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "two views":
            patch.setattr("deployments.understanding.training.MANY", 0)
        found = train(examples(), encode, embedder="toy@1")
    assert bool(found.linear.weights.any()) == (request.param == "two views")
    return found


def changed(head: Head, **arrays: Any) -> bytes:
    with np.load(io.BytesIO(head.to_bytes())) as file:
        kept = {name: file[name] for name in file.files}
    file_of_changes = io.BytesIO()
    np.savez(file_of_changes, **{**kept, **arrays})
    return file_of_changes.getvalue()


def about(head: Head, **changes: Any) -> np.ndarray:
    with np.load(io.BytesIO(head.to_bytes())) as file:
        kept = json.loads(file["about"].tobytes())
    return np.frombuffer(json.dumps({**kept, **changes}).encode(), np.uint8)


def test_a_head_is_an_intent_model(head: Head) -> None:
    model: IntentModel = head
    assert model.labels == ("greeting", "opening_hours", "order_status", "refund")
    assert model.embedder == "toy@1"


def test_new_texts_get_their_intent_and_probabilities_in_order(head: Head) -> None:
    for text, intent in [
        ("where is my parcel", "order_status"),
        ("i want my money", "refund"),
        ("hello hi", "greeting"),
    ]:
        ranked = head.predict(text, encode([text])[0]).ranked
        confidences = [one.confidence for one in ranked]
        assert ranked[0].name == intent
        assert confidences == sorted(confidences, reverse=True)
        assert sum(confidences) == pytest.approx(1, abs=1e-4)


def test_what_shares_no_word_is_further_out_of_scope_than_what_was_trained(head: Head) -> None:
    foreign = "quantum entanglement decoheres spontaneously in laboratories"
    known = [head.predict(one.text, encode([one.text])[0]) for one in examples()]
    found = head.predict(foreign, encode([foreign])[0])
    assert found.out_of_scope_score > max(one.out_of_scope_score for one in known)
    assert not any(one.out_of_scope for one in known)
    assert all(0 <= one.out_of_scope_score <= 1 for one in [found, *known])


def test_the_artefact_answers_as_the_head_that_made_it(head: Head) -> None:
    again = Head.from_bytes(head.to_bytes())
    for text in ("where is my parcel", "", "refund refund 12 ünïcode \ud800", "x" * 50_000):
        vector = encode([text])[0]
        ours, theirs = head.predict(text, vector), again.predict(text, vector)
        assert [one.name for one in ours.ranked] == [one.name for one in theirs.ranked]
        assert ours.ranked[0].confidence == pytest.approx(theirs.ranked[0].confidence, abs=1e-5)
        assert ours.out_of_scope_score == pytest.approx(theirs.out_of_scope_score, abs=1e-3)
    assert again.to_bytes() == head.to_bytes()


def test_the_same_arguments_make_the_same_artefact() -> None:
    first, second = (train(examples(), encode, embedder="toy@1", seed=3) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()


def test_an_embedding_of_another_length_is_refused(head: Head) -> None:
    with pytest.raises(ValueError, match=f"{DIMENSIONS} dimensions"):
        head.predict("hello", [1.0, 0.0])


def test_bytes_that_are_no_head_are_refused(head: Head) -> None:
    whole = head.to_bytes()
    for broken in (b"", b"hello", whole[: len(whole) // 2], whole[:-40], changed(head, landmarks=np.array(["x"]))):
        with pytest.raises(ValueError, match="hold no intent head"):
            Head.from_bytes(broken)


def test_pickled_objects_are_refused(head: Head) -> None:
    with pytest.raises(ValueError, match="hold no intent head"):
        Head.from_bytes(changed(head, weights=np.array([{"a": 1}], dtype=object)))


def test_artefacts_of_another_shape_are_refused(head: Head) -> None:
    rows, intents = head.weights.shape
    for name, array in {
        "weights": np.zeros((rows, intents + 1), np.float32),
        "landmarks": np.zeros((rows + 1, DIMENSIONS), np.float16),
        "bias": np.zeros(intents + 1, np.float32),
        "linear": np.zeros((intents, DIMENSIONS + 1), np.float32),
        "frequencies": np.zeros(BUCKETS - 1, np.float16),
        "starts": np.zeros(rows + 1, np.int32),
        "buckets": np.full(len(head.words.buckets), BUCKETS, np.uint16),
        "about": about(head, labels=["a", "a", "b", "c"]),
    }.items():
        with pytest.raises(ValueError, match="hold no intent head"):
            Head.from_bytes(changed(head, **{name: array}))


def test_another_format_is_refused(head: Head) -> None:
    with pytest.raises(ValueError, match="format 99"):
        Head.from_bytes(changed(head, about=about(head, format=99)))


def test_numbers_that_are_not_finite_are_refused(head: Head) -> None:
    weights = head.weights.copy()
    weights[0, 0] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        Head.from_bytes(changed(head, weights=weights))
    scope = {"slope": float("nan"), "offset": 0.0, "threshold": 0.5}
    with pytest.raises(ValueError, match="not finite"):
        Head.from_bytes(changed(head, about=about(head, scope=scope)))


def test_two_intents_are_enough() -> None:
    two = [example for example in examples() if example.intent in ("refund", "greeting")]
    found = train(two, encode, embedder="toy@1").predict("money back", encode(["money back"])[0])
    assert [one.name for one in found.ranked] == ["refund", "greeting"]


def test_names_of_intents_are_not_needed_in_letters() -> None:
    renamed = [
        replace(one, intent={"refund": "退款", "greeting": "?"}.get(one.intent, one.intent)) for one in examples()
    ]
    found = train(renamed, encode, embedder="toy@1").predict("money back", encode(["money back"])[0])
    assert found.ranked[0].name == "退款"


def test_a_description_teaches_words_that_no_example_has() -> None:
    text = "restitution restitution"
    described = {"refund": "restitution", "greeting": "salutation"}
    plain = train(examples(), encode, embedder="toy@1", effort="first")
    taught = train(examples(), encode, embedder="toy@1", effort="first", descriptions=described)
    assert taught.predict(text, encode([text])[0]).ranked[0].name == "refund"
    assert (
        taught.predict(text, encode([text])[0]).out_of_scope_score
        < plain.predict(text, encode([text])[0]).out_of_scope_score
    )


def test_enough_validation_texts_set_the_threshold_and_foreign_ones_among_them_do_not() -> None:
    inside = [Example(f"{one.text} {extra}", one.intent) for one in examples() for extra in ("please", "now", "then")]
    foreign = [Example(f"zebra {number} quagga okapi", "animals") for number in range(60)]
    plain, few, enough = (
        train(examples(), encode, embedder="toy@1", validation=given) for given in ([], inside[:49], inside + foreign)
    )
    assert few.to_bytes() == plain.to_bytes()
    refused = [enough.predict(one.text, encode([one.text])[0]).out_of_scope for one in inside]
    assert 0 < sum(refused) <= 4
    assert enough.scope.threshold != plain.scope.threshold


def test_progress_rises_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.understanding.training.MANY", 0)
    told: list[tuple[float, str]] = []
    train(examples(), encode, embedder="toy@1", progress=lambda share, stage: told.append((share, stage)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert [stage for stage, _ in itertools.groupby(stage for _, stage in told)] == [
        "embedding",
        "fitting",
        "fitting the second view",
        "calibrating",
        "done",
    ]


def test_bad_examples_are_refused_before_anything_is_embedded() -> None:
    def never(texts: object) -> Any:
        raise AssertionError

    with pytest.raises(InvalidExamples, match="'refund'"):
        train([Example("hello", "refund")], never, embedder="toy@1")


def test_with_more_examples_than_landmarks_the_answers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [
        Example(f"{one.text} {extra}", one.intent)
        for one in examples()
        for extra in ("please", "now", "thanks", "today")
    ]
    monkeypatch.setattr(kernel_ridge, "LANDMARKS", 60)
    monkeypatch.setattr(kernel_ridge, "EXACT", 60)
    found = train(many, encode, embedder="toy@1")
    assert len(found.landmarks) == 60
    right = [found.predict(one.text, encode([one.text])[0]).ranked[0].name == one.intent for one in examples()]
    assert sum(right) >= 22
