"""Test-time averaging: the logits of several views of a picture are averaged, in test and predict."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from distill_lightning.ranges import Range
from distill_lightning.recorded import Recorded

Enlarged = Annotated[float, Range(above=1, at_most=10)]


class EvaluationViews(Recorded, ABC):
    """The views of a picture whose logits are averaged."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        """Makes the views of a batch.

        Args:
            images: (B, C, H, W) float32, normalised.

        Yields:
            Pictures of the same shape.
        """


class FlipViews(EvaluationViews):
    """The picture and its mirror image (Krizhevsky et al. 2012)."""

    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        yield images
        yield images.flip(3)


class CropViews(EvaluationViews):
    """The four corners and the centre of the enlarged picture, and with ``flips`` their mirror images: 5 or 10 views
    (Krizhevsky et al. 2012, section 4.1).

    Args:
        resize: the side after enlarging as a multiple of the picture size, above 1; the paper uses 256 / 224.
        flips: whether the mirror images are used as well.

    Raises:
        InputError: ``resize`` is out of range.
    """

    def __init__(self, resize: Enlarged = 256 / 224, flips: bool = True) -> None:
        self.resize, self.flips = resize, flips

    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        height, width = images.shape[2:]
        tall, wide = round(height * self.resize), round(width * self.resize)
        larger = F.interpolate(images, (tall, wide), mode="bilinear", antialias=True)
        down, across = tall - height, wide - width
        places = [(0, 0), (0, across), (down, 0), (down, across), (round(down / 2), round(across / 2))]
        for top, left in places:
            view = larger[:, :, top : top + height, left : left + width]
            yield view
            if self.flips:
                yield view.flip(3)
