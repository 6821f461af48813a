"""Intents: a head over sentence embeddings, trained from a tenant's examples.

`train` makes a `Head`, `Head.from_bytes` reads one, `evaluate` measures it; docs/understanding.md says what was tried.
"""

from deployments.understanding.evaluation import Evaluation, evaluate
from deployments.understanding.examples import check_examples
from deployments.understanding.head import Head
from deployments.understanding.training import Effort, Encode, Progress, train

__all__ = ["Effort", "Encode", "Evaluation", "Head", "Progress", "check_examples", "evaluate", "train"]
