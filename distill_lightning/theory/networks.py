"""Small networks that are trained side by side, as one batched computation.

M networks d-h-K with one hidden layer of ReLU:

    f_m(x) = W2_m relu(W1_m x + b1_m) + b2_m

All M get the same batches, each has its own weights, and no gradient passes from one to another: it is the training of
M networks one after the other, but for rounding, in a fraction of the time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.diversity import disagreements


@dataclass(frozen=True)
class Recipe:
    """How networks are trained: SGD with momentum, a rate along a cosine to 0.

    Args:
        rate: the learning rate at the start.
        steps: the number of steps.
        batch: the samples in a batch.
        decay: the weight decay, which is added to the gradient.
        momentum: the momentum.
        nesterov: whether it is Nesterov's.
    """

    rate: float
    steps: int
    batch: int
    decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        return self.rate / 2 * (1 + math.cos(math.pi * step / self.steps))


class Networks(torch.nn.Module):
    """M networks d-h-K, with He's start: weights N(0, 2 / fan_in), biases 0.

    Args:
        members: M.
        sizes: (d, h, K).
        generator: draws the weights.
    """

    def __init__(self, members: int, sizes: tuple[int, int, int], generator: torch.Generator) -> None:
        super().__init__()
        inputs, hidden, outputs = sizes

        def drawn(fan_in: int, fan_out: int) -> torch.nn.Parameter:
            weights = torch.randn(members, fan_in, fan_out, generator=generator) * math.sqrt(2 / fan_in)
            return torch.nn.Parameter(weights)

        self.first, self.second = drawn(inputs, hidden), drawn(hidden, outputs)
        self.first_bias = torch.nn.Parameter(torch.zeros(members, 1, hidden))
        self.second_bias = torch.nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (M, B, K) for inputs (B, d)."""
        repeated = inputs.expand(len(self.first), *inputs.shape)
        hidden = torch.baddbmm(self.first_bias, repeated, self.first).relu()
        return torch.baddbmm(self.second_bias, hidden, self.second)


Loss = Callable[[Tensor, Tensor], Tensor]
"""The loss of each network, (M,), from logits (M, B, K) and the positions (B,) of the samples in the batch."""


def train(networks: Networks, inputs: Tensor, loss: Loss, recipe: Recipe, generator: torch.Generator) -> None:
    """Trains networks in place. Each step has a batch of its own, drawn without replacement within an epoch.

    Args:
        networks: the networks.
        inputs: (N, d).
        loss: see Loss. The losses of the networks are summed, so that each has the gradient of its own.
        recipe: rate, steps and so on.
        generator: draws the order of the samples.
    """
    optimizer = torch.optim.SGD(
        networks.parameters(), recipe.rate, recipe.momentum, weight_decay=recipe.decay, nesterov=recipe.nesterov
    )
    order = torch.empty(0, dtype=torch.int64)
    for step in range(recipe.steps):
        if len(order) < recipe.batch:
            order = torch.randperm(len(inputs), generator=generator)
        rows, order = order[: recipe.batch], order[recipe.batch :]
        optimizer.param_groups[0]["lr"] = recipe.rate_at(step)
        optimizer.zero_grad()
        loss(networks(inputs[rows]), rows).sum().backward()
        optimizer.step()


def cross_entropy(labels: Tensor) -> Loss:
    """The cross-entropy of each network with the labels (N,)."""

    def of(logits: Tensor, rows: Tensor) -> Tensor:
        members = len(logits)
        flat = F.cross_entropy(logits.flatten(0, 1), labels[rows].repeat(members), reduction="none")
        return flat.view(members, -1).mean(1)

    return of


def distillation(labels: Tensor, targets: Tensor, temperature: float, hard: float, soft: float) -> Loss:
    """KD for each network: hard CE + soft T^2 KL, with the logits of each network's teacher, (M, N, K)."""
    plain = cross_entropy(labels)

    def of(logits: Tensor, rows: Tensor) -> Tensor:
        wanted = (targets[:, rows] / temperature).log_softmax(-1)
        given = (logits / temperature).log_softmax(-1)
        divergence = (wanted.exp() * (wanted - given)).sum(-1).mean(-1)
        return hard * plain(logits, rows) + soft * temperature**2 * divergence

    return of


def averaged(labels: Tensor) -> Loss:
    """The cross-entropy of the mean of the networks' logits, times their number n; (1,).

    Through the mean each network gets 1/n of the gradient. The factor n undoes this: without it the networks are merely
    trained too little.
    """

    def of(logits: Tensor, rows: Tensor) -> Tensor:
        return len(logits) * F.cross_entropy(logits.mean(0), labels[rows])[None]

    return of


@torch.no_grad()
def logits_of(networks: Networks, inputs: Tensor) -> Tensor:
    """Logits (M, N, K) without gradients."""
    return networks(inputs)  # type: ignore[no-any-return]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share of right predictions: of logits (N, K), or the mean over networks of logits (M, N, K)."""
    return float((logits.argmax(-1) == labels).double().mean())


def disagreement(logits: Tensor) -> float:
    """The share of samples on which two of the networks predict different classes, the mean over pairs; (M, N, K). It
    is 0 for one network.
    """
    return float(disagreements(logits.argmax(-1))) / logits.shape[1]
