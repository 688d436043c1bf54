"""Ensembles on Gaussian inputs (Allen-Zhu & Li 2020, arXiv:2012.09816, section 1.1 and Fig. 4).

The paper's claim: with inputs from a Gaussian or a mixture of Gaussians, and labels from a planted network, networks
from different seeds differ, and yet their average is no better. Its sizes, learners and numbers are in an appendix that
we do not know, so that the settings here are our own:

    one          x = mu_c + N(0, I), one Gaussian for each of 10 classes, mu_c ~ N(0, I / 4), d = 30, N = 2,000
    three        three Gaussians for each class, mu ~ N(0, I), d = 10, N = 10,000
    planted      x ~ N(0, I), d = 30, N = 10,000; the label is the largest of the centred logits of a network 30-50-10

The learners are networks d-256-10 with ReLU: SGD with Nesterov momentum 0.9, rate 0.05 along a cosine, 600 steps of
200 samples.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distill_lightning.ranges import Count, NonNegative
from distill_lightning.seeds import MADE, seed_for
from distill_lightning.theory.computed import Computed
from distill_lightning.theory.networks import (
    Networks,
    Recipe,
    accuracy,
    averaged,
    cross_entropy,
    disagreement,
    logits_of,
    train,
)

CLASSES, HIDDEN, TEST_SIZE = 10, 256, 5000
TEACHER_HIDDEN = 50
MEANS, TRAIN, TEST, START, ORDER, AVERAGE_START, AVERAGE_ORDER = range(7)
"""What has random numbers of its own."""


@dataclass(frozen=True)
class Setting:
    """Inputs and labels.

    Args:
        dimension: d.
        samples: N.
        components: the Gaussians of each class; 0 for labels from a planted network.
        spread: the standard deviation of their means.
    """

    dimension: int
    samples: int
    components: int
    spread: float = 1.0


SETTINGS = {
    "one": Setting(30, 2000, 1, 0.5),
    "three": Setting(10, 10_000, 3),
    "planted": Setting(30, 10_000, 0),
}


def figure_4(
    setting: Literal["one", "three", "planted"] = "one",
    decay: NonNegative = 0.01,
    members: Count = 10,
    steps: Count = 600,
    seed: int = 0,
) -> Computed:
    """Trains networks from different seeds on Gaussian inputs, and compares their average with one of them.

    Args:
        setting: the inputs and labels; see the top of this file.
        decay: the weight decay.
        members: the number of networks.
        steps: the number of steps of each.
        seed: decides data, starts and order.

    Returns:
        Accuracies on 5,000 test samples: ``accuracy/one``, the mean of the networks, ``accuracy/ensemble``,
        ``accuracy/average_as_one``, ``accuracy/bayes`` of a mixture and ``accuracy/train``; ``gain`` (ensemble - one),
        ``gain/relative`` (of the error of one) and ``disagreement`` between two networks.
    """

    def generator(role: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed_for(MADE, seed, role))

    chosen = SETTINGS[setting]
    source = Mixture(chosen, generator(MEANS)) if chosen.components else Planted(chosen, generator(MEANS))
    inputs, labels = source.draw(chosen.samples, generator(TRAIN))
    test_inputs, test_labels = source.draw(TEST_SIZE, generator(TEST))
    recipe = Recipe(rate=0.05, steps=steps, batch=200, decay=decay, nesterov=True)
    sizes = (chosen.dimension, HIDDEN, CLASSES)
    networks = Networks(members, sizes, generator(START))
    train(networks, inputs, cross_entropy(labels), recipe, generator(ORDER))
    together = Networks(members, sizes, generator(AVERAGE_START))
    train(together, inputs, averaged(labels), recipe, generator(AVERAGE_ORDER))
    logits = logits_of(networks, test_inputs)
    one, ensemble = accuracy(logits, test_labels), accuracy(logits.mean(0), test_labels)
    metrics = {
        "accuracy/one": one,
        "accuracy/ensemble": ensemble,
        "accuracy/average_as_one": accuracy(logits_of(together, test_inputs).mean(0), test_labels),
        "accuracy/train": accuracy(logits_of(networks, inputs), labels),
        "gain": ensemble - one,
        "gain/relative": (ensemble - one) / max(1 - one, 1e-9),
        "disagreement": disagreement(logits),
    }
    if isinstance(source, Mixture):
        metrics["accuracy/bayes"] = accuracy(source.log_densities(test_inputs), test_labels)
    by_members = [(m, accuracy(logits[:m].mean(0), test_labels)) for m in range(1, members + 1)]
    return Computed(metrics, curves={"test/accuracy_by_members": by_members})


class Mixture:
    """Gaussians of unit covariance; each class has the same number of them, equally likely.

    Args:
        setting: sizes.
        generator: draws the means.
    """

    def __init__(self, setting: Setting, generator: torch.Generator) -> None:
        shape = (CLASSES, setting.components, setting.dimension)
        self.means = setting.spread * torch.randn(shape, generator=generator)
        self.setting = setting

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs (n, d) and labels (n,)."""
        labels = torch.randint(CLASSES, (count,), generator=generator)
        component = torch.randint(self.setting.components, (count,), generator=generator)
        noise = torch.randn(count, self.setting.dimension, generator=generator)
        return self.means[labels, component] + noise, labels

    def log_densities(self, inputs: Tensor) -> Tensor:
        """Log p(x | c) up to a constant: (n, K). The best possible classifier takes the largest."""
        squares = torch.cdist(inputs.double(), self.means.flatten(0, 1).double()).square()
        found: Tensor = (-squares / 2).unflatten(1, (CLASSES, -1)).logsumexp(2)
        return found


class Planted:
    """Standard Gaussian inputs with labels from a random network without biases. Its logits are centred for each class,
    so that no class takes all inputs.

    Args:
        setting: sizes.
        generator: draws the network, and the inputs on which its logits are centred.
    """

    def __init__(self, setting: Setting, generator: torch.Generator) -> None:
        self.setting = setting
        self.first = torch.randn(setting.dimension, TEACHER_HIDDEN, generator=generator)
        self.first *= math.sqrt(2 / setting.dimension)
        self.second = torch.randn(TEACHER_HIDDEN, CLASSES, generator=generator) * math.sqrt(2 / TEACHER_HIDDEN)
        self.mean = self._logits(torch.randn(TEST_SIZE, setting.dimension, generator=generator)).mean(0)

    def _logits(self, inputs: Tensor) -> Tensor:
        return (inputs @ self.first).relu() @ self.second

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs (n, d) and labels (n,)."""
        inputs = torch.randn(count, self.setting.dimension, generator=generator)
        return inputs, (self._logits(inputs) - self.mean).argmax(1)
