"""Communication between the processes of a run.

All processes must call a function that communicates; otherwise it waits forever. With one process nothing is
communicated, and each function returns what the single process passes.
"""

import sys
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torchmetrics.utilities.distributed import gather_all_tensors

from distill_lightning.errors import InputError
from distill_lightning.files import printable

T = TypeVar("T")


def process_count() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def leave_group() -> None:
    """Ends the communication of this process. Without it, torch's threads may abort the process while it exits."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this is the process with rank 0, which writes files."""
    return process_count() == 1 or dist.get_rank() == 0


def rank() -> int:
    """The number of this process among those of a run, also before they have found each other."""
    return getattr(rank_zero_only, "rank", 0) or 0


def number_alone() -> None:
    """Gives this process the number 0, since it trains alone."""
    rank_zero_only.rank = 0  # type: ignore[attr-defined]


def say(line: str) -> None:
    """Prints a line on standard error, once: also before the processes of a run have found each other."""
    if not rank():
        print(printable(line), file=sys.stderr, flush=True)


def gather_objects(mine: T) -> list[T]:
    """The objects of all processes, in the order of their ranks."""
    everyones = [mine] * process_count()
    if len(everyones) > 1:
        dist.all_gather_object(everyones, mine)
    return everyones


def refuse_different(what: str, mine: object) -> None:
    """Checks that all processes have the same. All must call it.

    Args:
        what: what some have if not, for the error: "other pictures".
        mine: what this process has.

    Raises:
        InputError: a process has something else.
    """
    everyones = gather_objects(mine)
    for rank, theirs in enumerate(everyones):
        if theirs != everyones[0]:
            raise InputError(f"process {rank} has {what} than process 0: give the same files to all")


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenates the rows (n, ...) of all processes. The number n may differ between processes."""
    return torch.cat(gather_all_tensors(rows)) if process_count() > 1 else rows


def sum_over_processes(values: Tensor) -> Tensor:
    """The elementwise sum over all processes. All get the result."""
    if process_count() > 1:
        values = values.clone()
        dist.all_reduce(values, dist.ReduceOp.SUM)
    return values


def mean_over_processes(rows: Tensor, weight: float) -> Tensor:
    """The mean over the rows of all processes, (n, D) to (D,). It is differentiable.

    Args:
        rows: the rows of this process, one for each new sample.
        weight: the weight of its batch; with weight 0 the process has no samples of its own, and its rows do not count.
    """
    if process_count() == 1:
        return rows.mean(0)
    count = len(rows) if weight else 0
    sums = torch.stack(all_gather((rows.sum(0) if count else 0 * rows.sum(0)).contiguous()))
    return sums.sum(0) / sum_over_processes(rows.new_tensor([count])).sum()


def largest(values: Tensor) -> Tensor:
    """The elementwise maximum over all processes. All get the result."""
    if process_count() > 1:
        values = values.clone()
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def from_first(value: T) -> T:
    """The object of the first process. All get it."""
    if process_count() > 1:
        shared = [value]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]
    return value


def from_first_into(values: Tensor) -> Tensor:
    """Overwrites a tensor with the values of the first process, and returns it."""
    if process_count() > 1:
        sent = values.contiguous()  # of others, a part would not be sent
        dist.broadcast(sent, 0)
        if sent is not values:
            values.copy_(sent)
    return values


def first_decides(decide: Callable[[], T]) -> T:
    """Calls ``decide`` on the first process alone, and returns its result on all processes.

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
