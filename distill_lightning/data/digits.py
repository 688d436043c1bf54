"""The digits of scikit-learn: 1,797 pictures of 8x8 in 17 grey levels. They are a part of the library: no download."""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.data.sources import MemorySource, Source
from distill_lightning.ranges import Range
from distill_lightning.seeds import stratified_order

TEST_SIZE = 360


class Digits(ImageData):
    """Handwritten digits, 10 classes, 1x8x8. A fixed fifth of them (360 pictures) is the test part.

    Args:
        image_size: the side of the pictures in pixels. With 28, enlarged by bilinear interpolation, they fit
            networks for MNIST.
        kwargs: see ImageData.

    Raises:
        InputError: an option is out of range.
    """

    root_names_the_pictures = False
    num_classes, channels = 10, 1

    def __init__(self, image_size: Annotated[int, Range(at_least=8)] = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size

    def read(self, part: str) -> tuple[Source, Tensor] | None:
        """See ImageData. There is no part "val"."""
        if part == "val":
            return None
        from sklearn.datasets import load_digits  # slow to import, and only needed here

        digits = load_digits()
        images = torch.from_numpy(digits.images * (255 / 16))[:, None]
        if self.image_size != 8:
            images = F.interpolate(images, size=(self.image_size, self.image_size), mode="bilinear", antialias=False)
        images = images.round().to(torch.uint8)
        labels = torch.from_numpy(digits.target).long()
        order = stratified_order(labels, seed=0)
        taken = (order[:TEST_SIZE] if part == "test" else order[TEST_SIZE:]).sort().values
        return MemorySource(images[taken]), labels[taken]
