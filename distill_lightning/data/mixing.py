"""Mixing a picture, and its label, with another of the training part.

Which other, and how much of it, is a function of (seed, epoch, index), whoever is in the batch. All views that an epoch
shows of a sample are of the same mixture, each picture in it augmented for itself: what a method compares (DLB's
repeated batch with its last answers, DDGSD's two views) is of the same content. A teacher sees the mixture that its
student sees, online and in a table.
"""

from abc import ABC, abstractmethod

import torch
from scipy.stats import beta
from torch import Tensor

from distill_lightning.data.augment import Draws
from distill_lightning.errors import InputError

QUANTILES = 2**16


class Mixing(ABC):
    """Pictures of two samples in one.

    Args:
        alpha: > 0; the share of the picture's own content is drawn from Beta(alpha, alpha).
        probability: of mixing at all, in [0, 1].
    """

    def __init__(self, alpha: float = 1.0, probability: float = 1.0) -> None:
        if not alpha > 0 or not 0 <= probability <= 1:
            raise InputError(f"alpha is {alpha}, probability {probability}: above 0, and from 0 to 1")
        self.alpha, self.probability = alpha, probability

    def partners(self, draws: Draws, taken: Tensor) -> Tensor:
        """Which sample each is mixed with: (B,) int64, of the training samples ``taken`` (n,)."""
        return taken[(draws.uniform().double() * len(taken)).long()]

    def shares(self, draws: Draws) -> Tensor:
        """float32 (B,) in [0, 1]: how much stays of the picture's own content."""
        if not hasattr(self, "_quantiles"):
            places = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
            self._quantiles = torch.from_numpy(beta(self.alpha, self.alpha).ppf(places.numpy())).float()
        mixed = draws.uniform() < self.probability
        self._quantiles = self._quantiles.to(mixed.device)
        share = self._quantiles[draws.integer(QUANTILES)]
        return torch.where(mixed, share, 1.0)

    @abstractmethod
    def __call__(self, images: Tensor, others: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Mixes float pictures (B, C, H, W), row by row. Also gives the share (B,) of each picture's own label."""


class Mixup(Mixing):
    """share * picture + (1 - share) * other (Zhang et al., ICLR 2018, arXiv:1710.09412).

    Args:
        alpha: as in Mixing; the paper takes 1.0 for CIFAR and 0.2 for ImageNet.
        probability: as in Mixing.
    """

    def __call__(self, images: Tensor, others: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        share = self.shares(draws)
        return torch.lerp(others, images, share[:, None, None, None]), share


class CutMix(Mixing):
    """A rectangle of the other picture in this one (Yun et al., ICCV 2019, arXiv:1905.04899).

    The rectangle has the picture's proportions and is cut off at its border; the share of the label is that of the
    pixels that stay.
    """

    def __call__(self, images: Tensor, others: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        height, width = images.shape[2:]
        side = (1 - self.shares(draws)).sqrt()
        down, across = self._inside(height, side, draws), self._inside(width, side, draws)
        box = down[:, :, None] & across[:, None, :]
        share = 1 - box.flatten(1).float().mean(1)
        return torch.where(box[:, None], others, images), share

    @staticmethod
    def _inside(size: int, side: Tensor, draws: Draws) -> Tensor:
        """Whether each of ``size`` rows (or columns) lies in the box: bool (B, size)."""
        centre, half = draws.integer(size), (side * size).long() // 2
        place = torch.arange(size, device=side.device)
        return (place >= (centre - half)[:, None]) & (place < (centre + half)[:, None])
