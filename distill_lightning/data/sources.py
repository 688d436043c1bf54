"""Where pictures come from: a tensor in memory, or files that worker processes decode as they are needed.

Both give the uint8 pictures (B, C, H, W) that a plan takes; what is done with them is the same.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from distill_lightning.data.plans import BatchPlan


class Source(Protocol):
    """Pictures by position."""

    device: torch.device
    shape: tuple[int, int, int]

    def __len__(self) -> int: ...

    def on(self, device: torch.device) -> "Source":
        """Itself, or a copy on the device where it fits there."""

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[tuple[Tensor, BatchPlan]]:
        """Each plan with the pictures that it takes, uint8 (B, C, H, W), in order."""

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Of all pictures, by channel, in units of full scale. float32 (C,) each."""

    def mark(self) -> bytes:
        """Of what is where: another order of the same pictures has another."""


class MemorySource:
    """All pictures as one uint8 tensor (N, C, H, W)."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.device = images.device
        self.shape: tuple[int, int, int] = (images.shape[1], images.shape[2], images.shape[3])
        self.copy: MemorySource | None = None

    def __len__(self) -> int:
        return len(self.images)

    def on(self, device: torch.device) -> Source:
        if device.type != "cuda":
            return self
        if self.copy is None and self.images.nbytes < torch.cuda.mem_get_info(device)[0] // 4:
            self.copy = MemorySource(self.images.to(device))
        return self if self.copy is None else self.copy

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[tuple[Tensor, BatchPlan]]:
        for plan in plans:
            yield self.images.index_select(0, plan.fetched), plan

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        return mean_and_std(self.images.split(1000))

    def mark(self) -> bytes:
        """The row of pixels in the middle of each picture tells enough."""
        rows = self.images[:, :, self.shape[1] // 2].cpu().contiguous()
        return hashlib.sha256(rows.numpy().tobytes()).digest()


def mean_and_std(chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and (population) standard deviation by channel of uint8 pictures, in units of full scale, from exact sums.

    A channel that never varies has a standard deviation of 1, so that it can be divided by.
    """
    count, total, squares = 0, torch.tensor(0), torch.tensor(0)
    for images in chunks:
        values = images.transpose(0, 1).flatten(1).int()  # 255^2 times 30,000 pixels a picture still fit in int64 sums
        count += values.shape[1]
        total = total + values.sum(1)
        squares = squares + (values * values).sum(1)
    mean = total.double() / count
    std = (squares.double() / count - mean**2).clamp(min=0).sqrt()
    return (mean / 255).float(), torch.where(std > 0, std / 255, 1.0).float()
