"""What several processes do together. Each function is called by all of them, or waits for ever.

With one process every function is the obvious one, and nothing is communicated.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torchmetrics.utilities.distributed import gather_all_tensors

from distill_lightning.errors import InputError

T = TypeVar("T")


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the first of them, which writes files."""
    return process_count() == 1 or dist.get_rank() == 0


def gather_objects(mine: T) -> list[T]:
    """What each process gives, in the order of their ranks."""
    everyones = [mine] * process_count()
    if len(everyones) > 1:
        dist.all_gather_object(everyones, mine)
    return everyones


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all processes, one after the other; each may have another number."""
    return torch.cat(gather_all_tensors(rows)) if process_count() > 1 else rows


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum, on all processes."""
    if process_count() > 1:
        values = values.clone()
        dist.all_reduce(values, dist.ReduceOp.SUM)
    return values


def mean_over_processes(rows: Tensor, weight: float) -> Tensor:
    """(n, D) to (D,): the mean over the new samples of all processes, through which the gradient goes.

    Args:
        rows: of this process.
        weight: of its batch; 0 for a process without samples, whose rows do not count.
    """
    if process_count() == 1:
        return rows.mean(0)
    count = len(rows) if weight else 0
    sums = torch.stack(all_gather((rows.sum(0) if count else 0 * rows.sum(0)).contiguous()))
    return sums.sum(0) / sum_over_processes(rows.new_tensor([count])).sum()


def largest(values: Tensor) -> Tensor:
    """The maximum, element by element, on all processes."""
    if process_count() > 1:
        values = values.clone()
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def from_first(value: T) -> T:
    """What the first process has, on all of them."""
    if process_count() > 1:
        shared = [value]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]
    return value


def from_first_into(values: Tensor) -> Tensor:
    """Overwrites a tensor with what the first process has, and returns it."""
    if process_count() > 1:
        dist.broadcast(values, 0)
    return values


def first_decides(decide: Callable[[], T]) -> T:
    """What the first process decides, on all of them; the others need not be able to.

    Raises:
        InputError: the first process raised it.
        RuntimeError: the first process raised another error.
    """
    if process_count() == 1:
        return decide()
    decided: tuple[T | None, Exception | None] = (None, None)
    if is_first():
        try:
            decided = (decide(), None)
        except Exception as error:
            ours = isinstance(error, InputError)
            decided = (None, error if ours else RuntimeError(f"{type(error).__name__}: {error}"))
    mine = decided[0]
    value, failed = from_first(decided)
    if failed is not None:
        raise failed
    return mine if mine is not None else value  # type: ignore[return-value]
