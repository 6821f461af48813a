"""The study's tuned last layer, on the packaged encoder and a few texts."""

from functools import cache

import numpy as np

from benchmarks.understanding.data import Vectors
from benchmarks.understanding.last_layer import ARRAYS, MOST_TOKENS, Tail, last_layer
from benchmarks.understanding.tuned import tuned_head
from benchmarks.understanding.tuning import embedded, tune
from tests.unit.understanding.toy import examples


@cache
def vectors() -> Vectors:
    return Vectors()


def test_the_layer_alone_makes_the_encoders_vectors_of_what_goes_into_it() -> None:
    texts = ["hi", "where is my order number 12345?", "", "Crème brûlée, 日本語 🙂"]
    given = vectors().states(texts)
    found = embedded(last_layer(vectors().model), given)
    np.testing.assert_allclose(found, vectors().model.encode(texts), atol=1e-3)
    assert len(vectors().states(["long " * 300])[0]) == MOST_TOKENS


def test_tuning_brings_examples_nearer_to_their_intents_and_is_the_same_each_time() -> None:
    known = examples()
    labels = sorted({one.intent for one in known})
    intents = np.array([labels.index(one.intent) for one in known])
    given, base = vectors().states([one.text for one in known]), last_layer(vectors().model)

    def within(layer: Tail) -> float:
        found = embedded(layer, given)
        same = intents[:, None] == intents
        return float((found @ found.T)[same].mean() - (found @ found.T)[~same].mean())

    tail, again = tune(base, given, intents), tune(base, given, intents)
    assert within(tail) > within(base)
    assert all(np.array_equal(getattr(tail, name), getattr(again, name)) for name in ARRAYS)


def test_the_tuned_head_names_what_it_has_not_seen_and_leaves_the_scope_to_the_plain_one() -> None:
    head = tuned_head(examples(), vectors(), 1)
    for text, intent in (("has the parcel been sent", "order_status"), ("could you refund me", "refund")):
        vector = vectors().encode([text])[0].tolist()
        found, plain = head.predict(text, vector), head.plain.predict(text, vector)
        assert found.ranked[0].name == intent and 0 < found.ranked[0].confidence <= 1
        assert (found.out_of_scope, found.out_of_scope_score) == (plain.out_of_scope, plain.out_of_scope_score)
