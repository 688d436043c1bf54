"""The plan of a batch: the samples in its rows and their views."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """The description of one process's batch, from which its pictures are fetched and rendered.

    Args:
        index: (B,) int64, the position of the sample in each row.
        view: (B,) int64, the number of its view.
        num_new: the number of rows with new samples.
        weight: see `Batch`.
        partner: (B,) int64, the position of the sample that each picture is mixed with; None without mixing.
        num_unlabelled: the number of rows of pictures without labels, which are the last ones.
    """

    index: Tensor
    view: Tensor
    num_new: int
    weight: float = 1.0
    partner: Tensor | None = None
    num_unlabelled: int = 0

    @classmethod
    def of_rows(cls, rows: Tensor) -> "BatchPlan":
        """The plan of an evaluation batch with the samples at ``rows``, (B,) int64."""
        return cls(rows, torch.zeros_like(rows), len(rows))

    @property
    def fetched(self) -> Tensor:
        """The positions of all pictures to fetch: (B,) int64, or (2B,) with mixing, partners last."""
        return self.index if self.partner is None else torch.cat([self.index, self.partner])
