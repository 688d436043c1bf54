"""scikit-learn's digits: 1,797 pictures of 8x8 in 17 grey levels. They come with the library: nothing to download."""

import torch
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.data.order import stratified_order
from distill_lightning.data.sources import MemorySource

TEST_SIZE = 360


class Digits(ImageData):
    """Handwritten digits, 10 classes, 1x8x8. A fixed fifth of them, 360, is the test part."""

    num_classes, channels, image_size = 10, 1, 8

    def read(self, part: str) -> tuple[MemorySource, Tensor] | None:
        if part == "val":
            return None
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).long()
        order = stratified_order(labels, seed=0)
        taken = (order[:TEST_SIZE] if part == "test" else order[TEST_SIZE:]).sort().values
        return MemorySource(images[taken]), labels[taken]
