"""The shared set of intents, without a model."""

import subprocess
import sys
from pathlib import Path

from deployments.head_cache import save
from deployments.intent_head import GENERAL, fingerprint, read_examples
from deployments.understanding import train
from tests.unit.understanding import toy

START = """
import sys
from pathlib import Path
import deployments.intent_classifier
from deployments.head_cache import load
load(Path(sys.argv[1]), "e@1", 48).predict("hello", [0.0] * 48)
print({"sklearn", "scipy"} & set(sys.modules))
"""


def test_every_intent_has_enough_examples_and_none_belongs_to_two() -> None:
    examples = read_examples(GENERAL)
    intents = [intent for _, intent in examples]
    assert len({text.lower() for text, _ in examples}) == len(examples)
    assert len(set(intents)) == 16
    assert min(intents.count(intent) for intent in set(intents)) >= 25


def test_other_examples_or_another_model_need_another_head() -> None:
    examples = [("hello", "greeting"), ("pay", "payment")]
    assert fingerprint("a", examples) == fingerprint("a", examples[::-1])
    assert len({fingerprint("a", examples), fingerprint("b", examples), fingerprint("a", examples[:1])}) == 3


def test_a_kept_head_is_read_and_used_without_what_trained_it(tmp_path: Path) -> None:
    save(train(toy.examples(), toy.encode, embedder="e@1"), tmp_path / "new" / "head.npz")
    found = subprocess.run(
        [sys.executable, "-c", START, str(tmp_path / "new" / "head.npz")], capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["head.npz"]
