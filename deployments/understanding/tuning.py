"""Tunes an encoder's last layers to a head's intents: cross-entropy over prototypes, from the states below them.

Every text passes the frozen layers once. Few epochs: the layers have seen a thousand million pairs of sentences, and
forget them where they learn a few hundred by heart.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.states import MOST_TOKENS, States
from deployments.understanding.tail import ARRAYS, EPSILON, Floats, Tail

EPOCHS, EPOCHS_OF_MANY = 4, 2
MANY = 2000  # examples
BATCH = 64
RATE = 3e-4  # of AdamW; prototypes learn five times as fast
WARM = 0.1  # of all steps, in which the rate rises; then it falls to nothing
SCALE = 20.0  # of cosines, which are the logits
DROPPED = 0.1
DECAY = 0.01
JITTER = 4.0  # tokens by which lengths are varied, so that texts of like length do not always meet the same others
TOGETHER = 32


def tune(
    base: Tail,
    states: Sequence[States],
    intents: NDArray[np.int64],
    *,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> Tail:
    """The tuned layers.

    `states`: of each example what goes into the first of them; `intents`: numbers from 0, each occurs. `progress` is
    called before every step, in [0, 1]; what it raises is passed on. The same arguments make the same layers on the
    same kind of processor.
    """
    import torch
    from torch.nn import functional

    generator = np.random.default_rng(seed)
    parts = {name: torch.nn.Parameter(torch.from_numpy(getattr(base, name).copy())) for name in ARRAYS}
    prototypes = torch.nn.Parameter(torch.from_numpy(_means(together(base, states), intents)))
    truth = torch.from_numpy(intents)
    optimiser = torch.optim.AdamW(
        [
            {"params": list(parts.values()), "lr": RATE, "weight_decay": DECAY},
            {"params": [prototypes], "lr": 5 * RATE, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    rates = [group["lr"] for group in optimiser.param_groups]
    shortened = _has_bfloat16()
    epochs = EPOCHS if len(states) < MANY else EPOCHS_OF_MANY
    steps, step = epochs * -(-len(states) // BATCH), 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(epochs):
            for rows in _batches(states, generator):
                progress(step / steps)
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * min(1.0, (step + 1) / (WARM * steps)) * (1 - step / steps)
                given, mask = _padded([states[i] for i in rows])
                # half the time on processors that multiply in this precision
                with torch.autocast("cpu", torch.bfloat16, enabled=shortened):
                    hidden = _passed(parts, base.heads, given, mask, DROPPED)
                cosines = _pooled(hidden.float(), mask) @ functional.normalize(prototypes, dim=1).T
                loss = functional.cross_entropy(SCALE * cosines, truth[torch.from_numpy(rows)])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(list(parts.values()), 1.0)
                optimiser.step()
                step += 1
    # in half precision, as an artefact holds it
    found = {name: part.detach().numpy().astype(np.float16).astype(np.float32) for name, part in parts.items()}
    return Tail(base.heads, **found)


def together(tail: Tail, states: Sequence[States]) -> Floats:
    """As `TailSession.embedded`, in float32, and quicker for many."""
    import torch

    parts = {name: torch.from_numpy(getattr(tail, name)) for name in ARRAYS}
    found = np.empty((len(states), tail.width), np.float32)
    order = np.argsort([len(one) for one in states], kind="stable")
    with torch.inference_mode():
        for start in range(0, len(order), TOGETHER):
            rows = order[start : start + TOGETHER]
            given, mask = _padded([states[i] for i in rows])
            found[rows] = _pooled(_passed(parts, tail.heads, given, mask, 0.0), mask).numpy()
    return found


def _has_bfloat16() -> bool:
    import torch

    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def _passed(parts: dict[str, Any], heads: int, hidden: Any, mask: Any, dropped: float) -> Any:
    """`hidden` (texts, tokens, width), `mask` True where a token is → as `hidden`."""
    for layer in range(len(parts["mixed"])):
        hidden = _layer({name: part[layer] for name, part in parts.items()}, heads, hidden, mask, dropped)
    return hidden


def _layer(parts: dict[str, Any], heads: int, hidden: Any, mask: Any, dropped: float) -> Any:
    from torch.nn import functional

    texts, tokens, width = hidden.shape
    each = (hidden @ parts["attention"] + parts["attention_bias"]).view(texts, tokens, 3, heads, width // heads)
    query, key, value = each.permute(2, 0, 3, 1, 4)
    seen = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask[:, None, None, :], dropout_p=dropped
    )
    seen = seen.transpose(1, 2).reshape(texts, tokens, width) @ parts["mixed"] + parts["mixed_bias"]
    norms = parts["norms"]
    middle = functional.layer_norm(
        hidden + functional.dropout(seen, dropped, dropped > 0), (width,), norms[0], norms[1], EPSILON
    )
    inner = functional.gelu(middle @ parts["up"] + parts["up_bias"], approximate="tanh")
    inner = functional.dropout(inner, dropped, dropped > 0) @ parts["down"] + parts["down_bias"]
    return functional.layer_norm(
        middle + functional.dropout(inner, dropped, dropped > 0), (width,), norms[2], norms[3], EPSILON
    )


def _pooled(hidden: Any, mask: Any) -> Any:
    """(texts, width), unit length."""
    from torch.nn import functional

    return functional.normalize(hidden.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True), dim=1)


def _padded(states: Sequence[States]) -> tuple[Any, Any]:
    import torch

    lengths = [min(len(one), MOST_TOKENS) for one in states]
    found = np.zeros((len(states), max(lengths), states[0].shape[1]), np.float32)
    for row, (one, length) in enumerate(zip(states, lengths, strict=True)):
        found[row, :length] = one[:length]
    return torch.from_numpy(found), torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def _batches(states: Sequence[States], generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Texts of like length together, which pads little; in another order each time."""
    lengths = np.array([len(one) for one in states]) + generator.uniform(0, JITTER, len(states))
    order = np.argsort(lengths)
    found = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return [found[i] for i in generator.permutation(len(found))]


def _means(embeddings: Floats, intents: NDArray[np.int64]) -> Floats:
    means = np.stack([embeddings[intents == number].mean(0) for number in range(int(intents.max()) + 1)])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)
