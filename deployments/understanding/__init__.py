"""Intents: a head over sentence embeddings, trained from a tenant's examples.

`train` makes a `Head`, `train_tuned` a `TunedHead`, `read_head` reads one, `evaluate` measures it;
docs/understanding.md says what was tried.
"""

from deployments.understanding.evaluation import Evaluation, evaluate
from deployments.understanding.examples import check_examples
from deployments.understanding.head import Head
from deployments.understanding.training import Encode, Progress, train
from deployments.understanding.tuned_head import TunedHead, read_head
from deployments.understanding.tuned_training import Tuning, train_any, train_tuned

__all__ = [
    "Encode",
    "Evaluation",
    "Head",
    "Progress",
    "TunedHead",
    "Tuning",
    "check_examples",
    "evaluate",
    "read_head",
    "train",
    "train_any",
    "train_tuned",
]
