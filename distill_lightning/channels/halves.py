"""Do classes have several views? What two halves of a layer's channels know, beside two halves of a mere code.

If a network has learned several views of a class, in channels of their own, then two random halves of its channels know
different views: each classifies well alone, and they are wrong on different pictures (Allen-Zhu & Li 2020,
arXiv:2012.09816, section 1.2). Halves of any code work somewhat, so the same is done with halves of randomly rotated
channels: only what is more than that speaks for views.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

DRAWS = 20
"""The number of random halves."""
RIDGE = 1e-2
"""The strength of the ridge, in units of the variance of a channel."""


@dataclass(frozen=True, eq=False)
class Halves:
    """What halves of C channels know, on the pictures that the classifiers were not fitted to.

    Args:
        whole: the accuracy of a linear classifier on all channels.
        half: (2, DRAWS), the mean accuracy of classifiers on both halves: of channels, and of rotated channels.
        both: (2, DRAWS), the accuracy of the sum of both classifiers.
        differ: (2, DRAWS), the share of the pictures for which both predict different classes.
        only_one: (2, DRAWS, K), the share of a class's pictures that exactly one half gets right.
        scored: the number of pictures that are predicted.
    """

    whole: float
    half: Tensor
    both: Tensor
    differ: Tensor
    only_one: Tensor
    scored: int

    def split_classes(self, errors: float = 2.0) -> Tensor:
        """(K,) bool: the classes that split into views: exactly one half of the channels is right more often than
        exactly one half of rotated channels is, by more than ``errors`` standard errors of the difference over draws.
        """
        mean, error = self.excess()
        return mean > errors * error

    def excess(self) -> tuple[Tensor, Tensor]:
        """The difference in ``only_one`` between channels and rotated ones, (K,), and its standard error, (K,)."""
        difference = self.only_one[0] - self.only_one[1]
        return difference.mean(0), difference.std(0) / len(difference) ** 0.5


def compare_halves(features: Tensor, labels: Tensor, num_classes: int, seed: int = 0) -> Halves | None:
    """Fits linear classifiers to halves of channels.

    They are ridge regressions on the classes, fitted to every other picture and scored on the others.

    Args:
        features: (N, C), the mean over cells of each living channel.
        labels: (N,) int64.
        num_classes: K.
        seed: draws the halves.

    Returns:
        The comparison; None with fewer than 4 channels, or with fewer than 2 pictures for each channel and class.
    """
    count, channels = features.shape
    if channels < 4 or count < 2 * max(channels, num_classes):
        return None
    x, fitted = features.double(), torch.arange(count) % 2 == 0
    x = (x - x[fitted].mean(0)) / x[fitted].std(0).clamp(min=1e-12)
    target = torch.nn.functional.one_hot(labels, num_classes).double()
    generator = torch.Generator().manual_seed(seed)
    truth = labels[~fitted]

    def scores(columns: Tensor) -> Tensor:
        """The scores of the pictures that are left, (n, K)."""
        a, b = columns[fitted], target[fitted] - target[fitted].mean(0)
        gram = a.T @ a + RIDGE * len(a) * torch.eye(a.shape[1], dtype=a.dtype)
        scored: Tensor = columns[~fitted] @ torch.linalg.solve(gram, a.T @ b) + target[fitted].mean(0)
        return scored

    whole = float((scores(x).argmax(1) == truth).double().mean())
    half, both, differ = (torch.zeros(2, DRAWS, dtype=torch.float64) for _ in range(3))
    only_one = torch.zeros(2, DRAWS, num_classes, dtype=torch.float64)
    sizes = truth.bincount(minlength=num_classes).clamp(min=1)
    for draw in range(DRAWS):
        order = torch.randperm(channels, generator=generator)
        rotation = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64)).Q
        for kind, columns in enumerate((x, x @ rotation)):
            first, second = (scores(columns[:, part]) for part in (order[: channels // 2], order[channels // 2 :]))
            right = [score.argmax(1) == truth for score in (first, second)]
            half[kind, draw] = torch.stack(right).double().mean()
            both[kind, draw] = ((first + second).argmax(1) == truth).double().mean()
            differ[kind, draw] = (first.argmax(1) != second.argmax(1)).double().mean()
            one = (right[0] ^ right[1]).double()
            only_one[kind, draw].index_add_(0, truth, one).div_(sizes)
    return Halves(whole, half, both, differ, only_one, len(truth))
