"""Augmentation of a batch. The result for each picture is a pure function of (seed, view, index).

A transform maps uint8 pictures (B, C, H, W) and a `Draws` to uint8 pictures; some take float pictures as well. The same
view of the same sample is always the same picture: after a resume, with another number of processes, and for a teacher
whose logits were stored earlier.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.data import pixels
from distill_lightning.errors import InputError
from distill_lightning.ranges import Count, Fraction, Positive, Range
from distill_lightning.recorded import Recorded
from distill_lightning.seeds import AUGMENT, hash_names, uniform

HalfTurn = Annotated[float, Range(0, 0.5)]


class Draws:
    """The random numbers for a batch. Each is a hash of (purpose, seed, number of the call, view, index).

    Args:
        seed: the seed of augmentation.
        view: (B,) int64, the number of the view.
        index: (B,) int64, the position of the sample.
        purpose: a constant of `seeds`; different purposes have independent numbers.
    """

    def __init__(self, seed: int, view: Tensor, index: Tensor, purpose: int = AUGMENT) -> None:
        self.seed, self.view, self.index, self.purpose = seed, view, index, purpose
        self.asked = 0

    def uniform(self) -> Tensor:
        """Uniform numbers, float32 (B,) in [0, 1). Each call draws new numbers."""
        self.asked += 1
        return uniform(self.purpose, self.seed, self.asked, self.view, self.index)

    def between(self, low: float, high: float) -> Tensor:
        """Uniform numbers, float32 (B,) in [low, high)."""
        return low + (high - low) * self.uniform()

    def integer(self, below: int) -> Tensor:
        """Uniform integers, int64 (B,) in [0, below)."""
        return (self.uniform() * below).long()

    def uniforms(self, count: int) -> Tensor:
        """Uniform numbers, float32 (B, count) in [0, 1)."""
        self.asked += 1
        places = torch.arange(count, device=self.index.device)
        return uniform(self.purpose, self.seed, self.asked, self.view[:, None], self.index[:, None], places)

    def normal(self, count: int) -> Tensor:
        """Standard normal numbers, float32 (B, count) (Box & Muller 1958)."""
        self.asked += 1
        pairs = torch.arange(-(-count // 2), device=self.index.device)
        bits = hash_names(self.purpose, self.seed, self.asked, self.view[:, None], self.index[:, None], pairs)
        first, second = (((bits >> shift) & 0xFFFFFF).float() * 2.0**-24 for shift in (40, 8))
        radius, angle = (-2 * torch.log(1 - first)).sqrt(), 2 * torch.pi * second
        return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :count]


class Transform(Recorded, ABC):
    """One step of augmentation."""

    takes_floats: ClassVar[bool] = False
    """Whether it takes float pictures, which made data have, as well as uint8."""

    @abstractmethod
    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Transforms pictures: uint8 (B, C, H, W) to uint8 (B, C, H, W). All random numbers come from ``draws``."""


class RandomCrop(Transform):
    """Pads with zeros on all sides and crops the original size at a random position.

    Args:
        padding: the width of the padding in pixels; usually 4 for 32x32.

    Raises:
        InputError: ``padding`` is out of range.
    """

    takes_floats = True

    def __init__(self, padding: Count = 4) -> None:
        self.padding = padding

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        # a view of all possible crops: (B, C, vertical positions, horizontal positions, H, W)
        crops = F.pad(images, [self.padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
        places = 2 * self.padding + 1
        down, across = draws.integer(places), draws.integer(places)
        return crops[torch.arange(len(images), device=images.device), :, down, across]


class RandomFlip(Transform):
    """Flips a picture horizontally with a given probability.

    Args:
        probability: the probability of a flip.

    Raises:
        InputError: ``probability`` is out of range.
    """

    takes_floats = True

    def __init__(self, probability: Fraction = 0.5) -> None:
        self.probability = probability

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        flipped = draws.uniform() < self.probability
        return torch.where(flipped[:, None, None, None], images.flip(3), images)


class RandomRotation(Transform):
    """Rotates about the centre by a random angle. The corners become black.

    Args:
        degrees: the largest angle in each direction.

    Raises:
        InputError: ``degrees`` is out of range.
    """

    def __init__(self, degrees: Positive = 15.0) -> None:
        self.degrees = degrees

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        return pixels.affine(images, pixels.rotation(draws.between(-self.degrees, self.degrees)))


class RandomScale(Transform):
    """Enlarges or shrinks about the centre by a random factor. Pixels from outside the picture are black.

    Args:
        smallest: the smallest factor. The logarithm of the factor is uniformly distributed.
        largest: the largest factor.

    Raises:
        InputError: a factor is out of range.
    """

    def __init__(self, smallest: Positive = 0.8, largest: Positive = 1.25) -> None:
        if smallest > largest:
            raise InputError(f"RandomScale.smallest is {smallest}: it must be at most largest, {largest}")
        self.smallest, self.largest = smallest, largest

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        inverse = (-draws.between(math.log(self.smallest), math.log(self.largest))).exp()
        zero = torch.zeros_like(inverse)
        return pixels.affine(images, pixels.matrices(inverse, zero, zero, zero, inverse, zero))


class ColorJitter(Transform):
    """Changes brightness, contrast and saturation, in this order, by factors from 1 - x to 1 + x; then rotates the hue.

    There are two differences to ColorJitter of torchvision, which draws the order at random and changes the hue in HSV.
    The hue rotation here keeps the luma.

    Args:
        brightness: x; 0 means no change.
        contrast: x; 0 means no change.
        saturation: x; 0 means no change.
        hue: the largest rotation in each direction, as a fraction of a full turn.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(
        self, brightness: Fraction = 0.4, contrast: Fraction = 0.4, saturation: Fraction = 0.4, hue: HalfTurn = 0.0
    ) -> None:
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.factors, self.hue = factors, hue

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        for name, value in self.factors.items():
            factor = draws.between(1 - value, 1 + value)
            images = getattr(pixels, name)(images, factor) if value else images
        return pixels.hue(images, draws.between(-self.hue, self.hue)) if self.hue else images


class GaussianNoise(Transform):
    """Adds independent Gaussian noise to each value of each pixel.

    Args:
        std: the standard deviation of the noise in units of full scale (255).

    Raises:
        InputError: ``std`` is out of range.
    """

    def __init__(self, std: Positive = 0.05) -> None:
        self.std = std

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        noise = draws.normal(images[0].numel()).view(images.shape)
        return pixels.to_bytes(images + 255 * self.std * noise)


class Cutout(Transform):
    """Covers a square whose centre is a random pixel of the picture (DeVries & Taylor 2017, arXiv:1708.04552).

    The paper fills the square with the mean of all pictures; here it is filled with the mean of the same picture, for
    each channel.

    Args:
        size: the side of the square in pixels; the paper uses 16 for CIFAR-10 and 8 for CIFAR-100.

    Raises:
        InputError: ``size`` is out of range.
    """

    def __init__(self, size: Count = 8) -> None:
        self.size = size

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        down, across = (self._inside(length, draws) for length in images.shape[2:])
        mean = pixels.to_bytes(images.float().mean((2, 3), keepdim=True))
        return torch.where((down[:, :, None] & across[:, None, :])[:, None], mean, images)

    def _inside(self, length: int, draws: Draws) -> Tensor:
        start = draws.integer(length)[:, None] - self.size // 2
        place = torch.arange(length, device=start.device)
        return (place >= start) & (place < start + self.size)


def augment(
    images: Tensor, transforms: Sequence[Transform], seed: int, view: Tensor, index: Tensor, asked: int = 0
) -> Tensor:
    """Applies transforms to the pictures of a batch.

    Args:
        images: uint8 (B, C, H, W).
        transforms: the transforms in order.
        seed: the seed of augmentation.
        view: (B,) int64, the number of the view of each sample.
        index: (B,) int64, the position of each sample.
        asked: how many numbers of each sample are drawn already, by a transform that came before.

    Returns:
        uint8 (B, C, H, W).
    """
    draws = Draws(seed, view, index)
    draws.asked = asked
    for transform in transforms:
        images = transform(images, draws)
    return images
