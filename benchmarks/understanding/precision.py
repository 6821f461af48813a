"""What search loses by int8: neighbours of held-out texts among a data set's training texts, beside float32's."""

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.understanding.data import Setting, Vectors
from deployments.embedder import FLOAT32, INT8

NEAREST = 10
BLOCK = 500  # questions at once


def precision(setting: Setting, console: Console) -> None:
    """Of the 10 nearest: how many are of the question's intent, and how many are among float32's 10 nearest."""
    train, test = ([example.text for example in part] for part in (setting.train, setting.test))
    stored, asked = (np.array([example.intent for example in part]) for part in (setting.train, setting.test))
    exact: NDArray[np.int64] | None = None
    table = Table(
        "", "of the same intent", "among float32's", title=f"{setting.name}: 10 nearest", title_justify="left"
    )
    for name in (FLOAT32, INT8):
        vectors = Vectors(name)
        with console.status(f"{name}: embedding, which takes minutes the first time"):
            for part in (train, test):
                vectors.prepare(part)
        found = _nearest(vectors.encode(train), vectors.encode(test))
        exact = found if exact is None else exact
        same = float((stored[found] == asked[:, None]).mean())
        kept = np.mean([len(set(a) & set(b)) / NEAREST for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
        table.add_row(name, f"{same:.4f}", f"{kept:.3f}")
    console.print(table)


def _nearest(stored: NDArray[np.float32], asked: NDArray[np.float32]) -> NDArray[np.int64]:
    """(asked, NEAREST) places in `stored`."""
    found = []
    for start in range(0, len(asked), BLOCK):
        scores = asked[start : start + BLOCK] @ stored.T
        found.append(np.argpartition(-scores, NEAREST - 1, axis=1)[:, :NEAREST])
    return np.concatenate(found).astype(np.int64)
