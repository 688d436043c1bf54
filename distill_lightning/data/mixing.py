"""Mixing of training pictures and their labels in pairs.

The partner of a sample and its share are functions of (seed, epoch, index); they do not depend on the rest of the
batch. All views of a sample in an epoch have the same partner and share, and each of the two pictures is augmented
separately. So methods that compare two views of a sample (DLB, DDGSD) compare pictures of the same content. The teacher
gets the same mixed pictures as the student, also for a table of soft targets.
"""

from abc import ABC, abstractmethod

import torch
from scipy.stats import beta
from torch import Tensor

from distill_lightning.data.augment import Draws
from distill_lightning.ranges import Fraction, Positive
from distill_lightning.recorded import Recorded

QUANTILES = 2**16


class Mixing(Recorded, ABC):
    """Base class: mixes each picture with the picture of a partner.

    Args:
        alpha: the share of the picture itself is drawn from Beta(alpha, alpha).
        probability: the probability that a picture is mixed.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, alpha: Positive = 1.0, probability: Fraction = 1.0) -> None:
        self.alpha, self.probability = alpha, probability

    def partners(self, draws: Draws, taken: Tensor) -> Tensor:
        """Draws a partner for each sample.

        Args:
            draws: the random numbers of the batch; this must be their first use.
            taken: (n,) int64, the positions of the training samples.

        Returns:
            (B,) int64, positions from ``taken``.
        """
        return taken[(draws.uniform().double() * len(taken)).long()]

    def shares(self, draws: Draws) -> Tensor:
        """Draws the share of each picture itself, float32 (B,) in [0, 1]; 1 for a picture that is not mixed."""
        if not hasattr(self, "_quantiles"):
            places = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
            self._quantiles = torch.from_numpy(beta(self.alpha, self.alpha).ppf(places.numpy())).float()
        mixed = draws.uniform() < self.probability
        self._quantiles = self._quantiles.to(mixed.device)
        share = self._quantiles[draws.integer(QUANTILES)]
        return torch.where(mixed, share, 1.0)

    @abstractmethod
    def __call__(self, images: Tensor, others: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Mixes pictures row by row.

        Args:
            images: (B, C, H, W) float.
            others: the pictures of the partners, with the same shape.
            draws: the random numbers of the batch.

        Returns:
            The mixed pictures, and the share of each picture's own label, float32 (B,).
        """


class Mixup(Mixing):
    """share * picture + (1 - share) * other (Zhang et al., ICLR 2018, arXiv:1710.09412).

    Args:
        alpha: see Mixing; the paper uses 1.0 for CIFAR and 0.2 for ImageNet.
        probability: see Mixing.
    """

    def __call__(self, images: Tensor, others: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        share = self.shares(draws)
        return torch.lerp(others, images, share[:, None, None, None]), share


class CutMix(Mixing):
    """Replaces a rectangle by the same rectangle of the other picture (Yun et al., ICCV 2019, arXiv:1905.04899).

    The rectangle has the aspect ratio of the picture and is clipped at its border. The share of the picture's own label
    is the fraction of its pixels that remain. Arguments as in Mixing.
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
