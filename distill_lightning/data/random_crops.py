"""Random parts of pictures: RandomResizedCrop, RandomErasing; and the resize and centre crop of evaluation."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.data import pixels
from distill_lightning.data.augment import Draws, Transform
from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import Box
from distill_lightning.ranges import Fraction, Positive, Range

Areas = tuple[Annotated[float, Range(above=0, at_most=1)], Annotated[float, Range(above=0, at_most=1)]]
Ratios = tuple[Positive, Positive]
Enlarged = Annotated[float, Range(1, 10)]
TRIES = 10
"""How often a size is drawn until it fits, as in torchvision."""


@dataclass(frozen=True)
class ChosenCrop:
    """Chooses the box of RandomResizedCrop in a picture of any size, from numbers that are already drawn.

    Args:
        numbers: `RandomResizedCrop.DRAWN` numbers in [0, 1).
        scale, ratio: see RandomResizedCrop.
    """

    numbers: tuple[float, ...]
    scale: tuple[float, float]
    ratio: tuple[float, float]

    def __call__(self, width: int, height: int) -> Box:
        """The box in a picture of ``width`` x ``height`` pixels."""
        # as crop_boxes, which would take longer for one picture than half of its decoding
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for share, form in zip(self.numbers[:TRIES], self.numbers[TRIES : 2 * TRIES], strict=True):
            area = width * height * (self.scale[0] + (self.scale[1] - self.scale[0]) * share)
            ratio = math.exp(low + (high - low) * form)
            wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < tall <= height:
                across, down = self.numbers[2 * TRIES :]
                return int((width - wide + 1) * across), int((height - tall + 1) * down), wide, tall
        wide, tall = middle_box(width, height, self.ratio)
        return (width - wide) // 2, (height - tall) // 2, wide, tall


def crop_boxes(
    width: int, height: int, numbers: Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """The boxes of RandomResizedCrop.

    Args:
        width: the width of the pictures.
        height: their height.
        numbers: (B, 22) in [0, 1): for each try the area and the ratio, then the position.
        scale: see RandomResizedCrop.
        ratio: see RandomResizedCrop.

    Returns:
        (B, 4) int64: left, top, width, height.
    """
    numbers = numbers.double()
    area = width * height * (scale[0] + (scale[1] - scale[0]) * numbers[:, :TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    form = (low + (high - low) * numbers[:, TRIES : 2 * TRIES]).exp()
    wide, tall = (area * form).sqrt().round().long(), (area / form).sqrt().round().long()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = fits.int().argmax(1, keepdim=True)
    middle = middle_box(width, height, ratio)
    wide, tall = (
        torch.where(fits.any(1), drawn.gather(1, first)[:, 0], given)
        for drawn, given in zip((wide, tall), middle, strict=True)
    )
    drawn_x = ((width - wide + 1) * numbers[:, 2 * TRIES]).long()
    drawn_y = ((height - tall + 1) * numbers[:, 2 * TRIES + 1]).long()
    left = torch.where(fits.any(1), drawn_x, (width - wide) // 2)
    top = torch.where(fits.any(1), drawn_y, (height - tall) // 2)
    return torch.stack([left, top, wide, tall], 1)


def middle_box(width: int, height: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """The width and height of the largest box whose ratio is allowed. It is used if no drawn box fits."""
    form = min(max(width / height, ratio[0]), ratio[1])
    return min(width, round(height * form)), min(height, round(width / form))


def resize_boxes(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resizes a box of each picture, bilinearly with antialiasing, as ``resized_crop`` of torchvision.

    Args:
        images: uint8 (B, C, H, W).
        boxes: (B, 4) int64: left, top, width, height.
        size: the side of the result in pixels.

    Returns:
        uint8 (B, C, size, size).
    """
    across = _weights(boxes[:, 0], boxes[:, 2], images.shape[3], size)
    down = _weights(boxes[:, 1], boxes[:, 3], images.shape[2], size)
    resized = torch.einsum("bsh,bchw,btw->bcst", down, images.float(), across)
    return pixels.to_bytes(resized)


def _weights(start: Tensor, length: Tensor, total: int, size: int) -> Tensor:
    """The weights (B, size, total) of the pixels in each pixel of the result, along one axis."""
    places = torch.arange(total, device=start.device)
    scale = length.double() / size
    centre = start[:, None] + scale[:, None] * (torch.arange(size, device=start.device) + 0.5)
    reach = scale.clamp(min=1)[:, None, None]
    weights = (1 - ((places + 0.5) - centre[:, :, None]).abs() / reach).clamp(min=0)
    inside = (places >= start[:, None]) & (places < (start + length)[:, None])
    weights = weights * inside[:, None]
    return (weights / weights.sum(2, keepdim=True)).float()


class RandomResizedCrop(Transform):
    """Cuts a random part with a random ratio of width to height, and resizes it to the picture size, bilinearly with
    antialiasing (Szegedy et al. 2015, arXiv:1409.4842, section 6).

    As the first transform of pictures that stay on disk (``data.from_files``), it cuts from the whole picture of the
    file, before decoding. From pictures in memory, it cuts from the square that is stored.

    Args:
        scale: the range of the area, as a fraction of the picture; [0.08, 1] is usual for ImageNet, [0.25, 1] for
            small pictures.
        ratio: the range of width / height.

    Raises:
        InputError: an option is out of range.
    """

    DRAWN = 2 * TRIES + 2
    """How many random numbers it draws."""

    def __init__(self, scale: Areas = (0.08, 1.0), ratio: Ratios = (3 / 4, 4 / 3)) -> None:
        if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise InputError(
                f"scale is {scale}, ratio {ratio}: RandomResizedCrop needs 0 < low <= high, and a scale of 1 at most"
            )
        self.scale, self.ratio = (scale[0], scale[1]), (ratio[0], ratio[1])

    def numbers(self, draws: Draws) -> Tensor:
        """The random numbers of a batch, (B, 22) in [0, 1)."""
        return torch.stack([draws.uniform() for _ in range(self.DRAWN)], 1)

    def choices(self, draws: Draws) -> list[ChosenCrop]:
        """For each picture of a batch what chooses its box."""
        return [ChosenCrop(tuple(row), self.scale, self.ratio) for row in self.numbers(draws).tolist()]

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        return resize_boxes(images, crop_boxes(width, height, self.numbers(draws), self.scale, self.ratio), width)


class RandomErasing(Transform):
    """Covers a random rectangle (Zhong et al. 2020, arXiv:1708.04896), with the mean of the picture for each channel.

    The paper fills it with random values or the mean of all pictures.

    Args:
        probability: the probability that a picture is changed, in [0, 1].
        scale: the range of the area, as a fraction of the picture.
        ratio: the range of height / width.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(
        self,
        probability: Fraction = 0.5,
        scale: Areas = (0.02, 0.33),
        ratio: Ratios = (0.3, 3.3),
    ) -> None:
        if not 0 <= probability <= 1 or not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise InputError(
                f"probability is {probability}, scale {scale}, ratio {ratio}: RandomErasing needs 0 to 1, and "
                "0 < low <= high, with a scale of 1 at most"
            )
        self.probability, self.scale, self.ratio = probability, scale, ratio

    def boxes(self, width: int, height: int, draws: Draws) -> Tensor:
        """The rectangles of a batch, (B, 4) int64: left, top, width, height. A height of 0 means none."""
        happens = draws.uniform() < self.probability
        numbers = torch.stack([draws.uniform() for _ in range(2 * TRIES + 2)], 1).double()
        area = width * height * (self.scale[0] + (self.scale[1] - self.scale[0]) * numbers[:, :TRIES])
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        form = (low + (high - low) * numbers[:, TRIES : 2 * TRIES]).exp()
        tall, wide = (area * form).sqrt().round().long(), (area / form).sqrt().round().long()
        fits = (tall < height) & (wide < width)
        first = fits.int().argmax(1, keepdim=True)
        tall, wide = (drawn.gather(1, first)[:, 0] for drawn in (tall, wide))
        tall = torch.where(happens & fits.any(1), tall, 0)
        left = ((width - wide + 1) * numbers[:, 2 * TRIES]).long()
        top = ((height - tall + 1) * numbers[:, 2 * TRIES + 1]).long()
        return torch.stack([left, top, wide, tall], 1)

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        left, top, wide, tall = self.boxes(width, height, draws)[:, :, None].unbind(1)
        across, down = (torch.arange(length, device=images.device) for length in (width, height))
        covered = ((down >= top) & (down < top + tall))[:, :, None] & ((across >= left) & (across < left + wide))[
            :, None
        ]
        mean = pixels.to_bytes(images.float().mean((2, 3), keepdim=True))
        return torch.where(covered[:, None], mean, images)


class ResizeAndCenterCrop(Transform):
    """Enlarges the picture and crops its centre, as evaluation for ImageNet does (resize to 256, crop to 224). It draws
    no random numbers. For ``data.eval_transforms``.

    Args:
        resize: the side after resizing as a multiple of the picture size, at least 1.

    Raises:
        InputError: ``resize`` is out of range.
    """

    def __init__(self, resize: Enlarged = 256 / 224) -> None:
        self.resize = resize

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        return self.cropped(images)

    def cropped(self, images: Tensor) -> Tensor:
        """The centre of enlarged pictures, uint8 (B, C, H, W) as they are."""
        size = images.shape[3]
        side = round(size * self.resize)
        start = round((side - size) / 2)
        larger = F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)
        return pixels.to_bytes(larger[:, :, start : start + size, start : start + size])
