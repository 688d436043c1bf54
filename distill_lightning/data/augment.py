"""Augmentation of a batch, each picture by itself, as a pure function of (seed, view, index).

A transform takes uint8 pictures (B, C, H, W) and a `Draws`, and gives uint8 pictures. Whoever asks for the same view of
the same sample gets the same picture: a resumed run, another number of processes, a teacher that was asked last week.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.data.order import AUGMENT, uniform
from distill_lightning.errors import InputError


class Draws:
    """Random numbers for a batch, by name.

    Args:
        seed: of the run.
        view: (B,) int64, which view of each sample.
        index: (B,) int64, which sample.
    """

    def __init__(self, seed: int, view: Tensor, index: Tensor) -> None:
        self.seed, self.view, self.index = seed, view, index
        self.asked = 0

    def uniform(self) -> Tensor:
        """float32 (B,) in [0, 1). Each call is a new draw."""
        self.asked += 1
        return uniform(AUGMENT, self.seed, self.asked, self.view, self.index)

    def integer(self, below: int) -> Tensor:
        """int64 (B,) in [0, below)."""
        return (self.uniform() * below).long()


class Transform(ABC):
    """One step of augmentation."""

    @abstractmethod
    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """uint8 (B, C, H, W) to uint8 (B, C, H, W). All randomness comes from ``draws``."""


class RandomCrop(Transform):
    """Pads with zeros on all sides and cuts the original size out again, at a random place.

    Args:
        padding: pixels, at least 1. 4 is usual for 32x32.
    """

    def __init__(self, padding: int = 4) -> None:
        if padding < 1:
            raise InputError(f"padding is {padding}: RandomCrop needs 1 pixel or more; leave it out for none")
        self.padding = padding

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        # every place at once, as a view: (B, C, places down, places across, H, W)
        crops = F.pad(images, [self.padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
        places = 2 * self.padding + 1
        down, across = draws.integer(places), draws.integer(places)
        return crops[torch.arange(len(images), device=images.device), :, down, across]


class RandomFlip(Transform):
    """Mirrors left and right.

    Args:
        probability: in [0, 1].
    """

    def __init__(self, probability: float = 0.5) -> None:
        if not 0 <= probability <= 1:
            raise InputError(f"probability is {probability}: RandomFlip needs a number from 0 to 1")
        self.probability = probability

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        flipped = draws.uniform() < self.probability
        return torch.where(flipped[:, None, None, None], images.flip(3), images)


def augment(images: Tensor, transforms: Sequence[Transform], seed: int, view: Tensor, index: Tensor) -> Tensor:
    """The given view of each sample. uint8 (B, C, H, W); ``view`` and ``index`` are int64 (B,)."""
    draws = Draws(seed, view, index)
    for transform in transforms:
        images = transform(images, draws)
    return images
