"""Which rows a process sees in one batch."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """A batch before its pictures are fetched.

    Args:
        index: (B,) int64, which samples.
        view: (B,) int64, which view of each.
        num_new: how many rows are new samples.
        weight: of this process's share, see `Batch`.
        partner: (B,) int64, what each picture is mixed with, where pictures are mixed.
    """

    index: Tensor
    view: Tensor
    num_new: int
    weight: float = 1.0
    partner: Tensor | None = None

    @classmethod
    def of_rows(cls, rows: Tensor) -> "BatchPlan":
        """For evaluation: these rows as they are."""
        return cls(rows, torch.zeros_like(rows), len(rows))

    @property
    def fetched(self) -> Tensor:
        """The positions of all pictures that it takes."""
        return self.index if self.partner is None else torch.cat([self.index, self.partner])
