"""Sources of pictures: a tensor in memory, or (in ``picture_files``) files that worker processes decode when needed.

Both return the uint8 pictures (B, C, H, W) of a plan. A tensor in memory may have floats, which made data consist of.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from distill_lightning.data.plans import BatchPlan
from distill_lightning.pillow_decoding import ChooseBox

ChooseBoxes = Callable[[BatchPlan], list[ChooseBox]]
"""For each picture that a plan fetches, what chooses the part of it that is decoded."""


class Streamed(Protocol):
    """What gives the pictures of a plan. ``device`` is the device of the pictures."""

    device: torch.device

    def on(self, device: torch.device) -> "Streamed":
        """The same with the pictures on ``device`` if there is enough memory; otherwise the object itself."""

    def stream(
        self,
        plans: Iterable[BatchPlan],
        groups: Sequence[Tensor] = (),
        boxes: ChooseBoxes | None = None,
    ) -> Iterator[tuple[Tensor, BatchPlan]]:
        """Fetches the pictures of each plan, in order: uint8 (B, C, H, W), at the positions ``plan.fetched``.

        Args:
            plans: the plans.
            groups: positions, (n,) int64 each. A damaged picture is replaced by one of its own group, and left out if
                there are no groups. The plan that is given back has the positions of the pictures that are there.
            boxes: for each row of a plan the part of the picture that is decoded. A source in memory ignores it.
        """


class Source(Streamed, Protocol):
    """Stored pictures, addressed by position.

    ``shape`` is (C, H, W) of each picture, and ``bad`` has the positions of pictures that are known to be damaged, with
    what is wrong with them.
    """

    shape: tuple[int, int, int]
    bad: dict[int, str]

    def __len__(self) -> int: ...

    def on(self, device: torch.device) -> "Source":
        """See Streamed."""

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, float32 (C,) each, in units of full scale (255)."""

    def mark(self) -> bytes:
        """A digest that identifies the pictures and their order."""


class MemorySource:
    """A source that holds all pictures in memory.

    Args:
        images: uint8 (N, C, H, W); or float32, and the network gets the values as they are, without a normalisation.
        bad: the positions of pictures that could not be decoded, which are black, with what is wrong with them.
    """

    def __init__(self, images: Tensor, bad: dict[int, str] | None = None) -> None:
        self.images, self.bad = images, bad or {}
        self.device = images.device
        self.shape: tuple[int, int, int] = (images.shape[1], images.shape[2], images.shape[3])
        self.copy: MemorySource | None = None

    @property
    def has_floats(self) -> bool:
        """Whether the pictures are floats."""
        return self.images.is_floating_point()

    def __len__(self) -> int:
        return len(self.images)

    def on(self, device: torch.device) -> Source:
        """See Source. A copy on a CUDA device is made once, if it needs less than a quarter of the free memory."""
        if device.type != "cuda":
            return self
        if self.copy is None and self.images.nbytes < torch.cuda.mem_get_info(device)[0] // 4:
            self.copy = MemorySource(self.images.to(device), self.bad)
        return self if self.copy is None else self.copy

    def stream(
        self,
        plans: Iterable[BatchPlan],
        groups: Sequence[Tensor] = (),
        boxes: ChooseBoxes | None = None,
    ) -> Iterator[tuple[Tensor, BatchPlan]]:
        """See Streamed. Splits do not contain damaged pictures, so that none has to be replaced."""
        for plan in plans:
            yield self.images.index_select(0, plan.fetched), plan

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """See Source. It uses all pictures that are not damaged. For floats it is what leaves them as they are."""
        if self.has_floats:
            return torch.zeros(self.shape[0]), torch.full((self.shape[0],), 1 / 255)
        if not self.bad:
            return mean_and_std(self.images.split(1000))
        good = torch.tensor([i not in self.bad for i in range(len(self))])
        return mean_and_std(self.images[good].split(1000))

    def mark(self) -> bytes:
        """See Source. It hashes the middle row of pixels of each picture, which is enough to identify it."""
        rows = self.images[:, :, self.shape[1] // 2].cpu().contiguous()
        return hashlib.sha256(rows.numpy().tobytes()).digest()


def mean_and_std(chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of each channel, from exact integer sums.

    Args:
        chunks: uint8 pictures (n, C, H, W).

    Returns:
        float32 (C,) each, in units of full scale (255). The standard deviation of a constant channel is given as 1, so
        that normalisation does not divide by 0.
    """
    count, total, squares = 0, torch.tensor(0), torch.tensor(0)
    for images in chunks:
        values = images.transpose(0, 1).flatten(1).int()  # squares fit in int32; sum() adds them in int64
        count += values.shape[1]
        total = total + values.sum(1)
        squares = squares + (values * values).sum(1)
    mean = total.double() / count
    std = (squares.double() / count - mean**2).clamp(min=0).sqrt()
    return (mean / 255).float(), torch.where(std > 0, std / 255, 1.0).float()
