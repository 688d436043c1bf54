"""Augmentation of a batch, each picture by itself, as a pure function of (seed, view, index).

A transform takes uint8 pictures (B, C, H, W) and a `Draws`, and gives uint8 pictures. Whoever asks for the same view of
the same sample gets the same picture: a resumed run, another number of processes, a teacher that was asked last week.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.data import pixels
from distill_lightning.errors import InputError
from distill_lightning.seeds import AUGMENT, hash_names, uniform


class Draws:
    """Random numbers for a batch, by name.

    Args:
        seed: of the run.
        view: (B,) int64, which view of each sample.
        index: (B,) int64, which sample.
        purpose: what they are for.
    """

    def __init__(self, seed: int, view: Tensor, index: Tensor, purpose: int = AUGMENT) -> None:
        self.seed, self.view, self.index, self.purpose = seed, view, index, purpose
        self.asked = 0

    def uniform(self) -> Tensor:
        """float32 (B,) in [0, 1). Each call is a new draw."""
        self.asked += 1
        return uniform(self.purpose, self.seed, self.asked, self.view, self.index)

    def between(self, low: float, high: float) -> Tensor:
        """float32 (B,) in [low, high)."""
        return low + (high - low) * self.uniform()

    def integer(self, below: int) -> Tensor:
        """int64 (B,) in [0, below)."""
        return (self.uniform() * below).long()

    def normal(self, count: int) -> Tensor:
        """float32 (B, count), standard normal (Box & Muller 1958)."""
        self.asked += 1
        pairs = torch.arange(-(-count // 2), device=self.index.device)
        bits = hash_names(self.purpose, self.seed, self.asked, self.view[:, None], self.index[:, None], pairs)
        first, second = (((bits >> shift) & 0xFFFFFF).float() * 2.0**-24 for shift in (40, 8))
        radius, angle = (-2 * torch.log(1 - first)).sqrt(), 2 * torch.pi * second
        return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :count]


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


class RandomRotation(Transform):
    """Turns about the centre; the corners are filled with black.

    Args:
        degrees: the most, to either side; above 0.
    """

    def __init__(self, degrees: float = 15.0) -> None:
        if not degrees > 0:
            raise InputError(f"degrees is {degrees}: RandomRotation needs more than 0")
        self.degrees = degrees

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        return pixels.affine(images, pixels.rotation(draws.between(-self.degrees, self.degrees)))


class RandomScale(Transform):
    """Enlarges or shrinks about the centre; what is laid bare is filled with black.

    Args:
        smallest, largest: factors, above 0; drawn evenly in their logarithm.
    """

    def __init__(self, smallest: float = 0.8, largest: float = 1.25) -> None:
        if not 0 < smallest <= largest:
            raise InputError(f"smallest is {smallest}, largest {largest}: RandomScale needs 0 < smallest <= largest")
        self.smallest, self.largest = smallest, largest

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        inverse = (-draws.between(math.log(self.smallest), math.log(self.largest))).exp()
        zero = torch.zeros_like(inverse)
        return pixels.affine(images, pixels.matrices(inverse, zero, zero, zero, inverse, zero))


class ColorJitter(Transform):
    """Changes brightness, contrast and saturation by factors from 1 - x to 1 + x, in this order, and then turns the hue
    at equal luma. (torchvision's order is drawn, and its hue is that of HSV.)

    Args:
        brightness, contrast, saturation: x, in [0, 1]; 0 leaves it alone.
        hue: the most, as a part of a full turn to either side, in [0, 0.5].
    """

    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.0
    ) -> None:
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, value in factors.items():
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}: ColorJitter needs a number from 0 to 1")
        if not 0 <= hue <= 0.5:
            raise InputError(f"hue is {hue}: ColorJitter needs a number from 0 to 0.5")
        self.factors, self.hue = factors, hue

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        for name, value in self.factors.items():
            factor = draws.between(1 - value, 1 + value)
            images = getattr(pixels, name)(images, factor) if value else images
        return pixels.hue(images, draws.between(-self.hue, self.hue)) if self.hue else images


class GaussianNoise(Transform):
    """Adds noise to every pixel and channel.

    Args:
        std: its standard deviation in units of full scale, above 0.
    """

    def __init__(self, std: float = 0.05) -> None:
        if not std > 0:
            raise InputError(f"std is {std}: GaussianNoise needs more than 0")
        self.std = std

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        noise = draws.normal(images[0].numel()).view(images.shape)
        return pixels.to_bytes(images + 255 * self.std * noise)


class Cutout(Transform):
    """Blanks a square, whose centre lies anywhere in the picture (DeVries & Taylor 2017, arXiv:1708.04552).

    The paper blanks with the mean of all pictures; this takes the picture's own, channel by channel.

    Args:
        size: of the side, in pixels; the paper has 16 for CIFAR-10 and 8 for CIFAR-100.
    """

    def __init__(self, size: int = 8) -> None:
        if size < 1:
            raise InputError(f"size is {size}: Cutout needs 1 pixel or more")
        self.size = size

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        down, across = (self._inside(length, draws) for length in images.shape[2:])
        mean = pixels.to_bytes(images.float().mean((2, 3), keepdim=True))
        return torch.where((down[:, :, None] & across[:, None, :])[:, None], mean, images)

    def _inside(self, length: int, draws: Draws) -> Tensor:
        start = draws.integer(length)[:, None] - self.size // 2
        place = torch.arange(length, device=start.device)
        return (place >= start) & (place < start + self.size)


def augment(images: Tensor, transforms: Sequence[Transform], seed: int, view: Tensor, index: Tensor) -> Tensor:
    """The given view of each sample. uint8 (B, C, H, W); ``view`` and ``index`` are int64 (B,)."""
    draws = Draws(seed, view, index)
    for transform in transforms:
        images = transform(images, draws)
    return images
