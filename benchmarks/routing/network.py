"""The scorer's small networks, trained with torch: which of the two models is right, and by how much more often."""

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deployments.complexity_parts import Network

# Chosen with what stands in `training`, on the same data.
NETWORKS, UNITS, EPOCHS, BATCH, RATE, DECAY = 2, 64, 12, 128, 2e-3, 0.05
DROPPED_INPUTS, DROPPED_UNITS = 0.1, 0.3


def train_network(inputs: NDArray, cheap: NDArray, strong: NDArray, seed: int) -> Network:
    """`inputs` (n, features + dimensions), `cheap`, `strong` (n,) 1.0 where right. In one thread: repeatable."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data, right = torch.from_numpy(inputs), torch.stack([torch.from_numpy(cheap), torch.from_numpy(strong)], 1)
        with torch.random.fork_rng(devices=[]):
            nets = [_trained(data, right, seed + number) for number in range(NETWORKS)]
    finally:
        torch.set_num_threads(threads)
    layers = [(net[1].weight.T, net[1].bias[None], net[4].weight.T, net[4].bias[None]) for net in nets]
    return Network(*(torch.stack(kind).detach().numpy().copy() for kind in zip(*layers, strict=True)))


def _trained(data: Tensor, right: Tensor, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Dropout(DROPPED_INPUTS),
        nn.Linear(data.shape[1], UNITS),
        nn.SiLU(),
        nn.Dropout(DROPPED_UNITS),
        nn.Linear(UNITS, 2),
    )
    steps = EPOCHS * -(-len(data) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(data)).split(BATCH):
            loss = _loss(net(data[batch]), right[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def _loss(logits: Tensor, right: Tensor) -> Tensor:
    """That each model is right, and the square of what is missing from the gap between them."""
    said = torch.sigmoid(logits)
    gap = (said[:, 1] - said[:, 0]) - (right[:, 1] - right[:, 0])
    return nn.functional.binary_cross_entropy_with_logits(logits, right) + (gap * gap).mean()
