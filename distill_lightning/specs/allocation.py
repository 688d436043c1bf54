"""How much memory a network may take that a file describes: refused with the number, before it is taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from distill_lightning.errors import InputError
from distill_lightning.files import nested_values

SLACK = 1 << 27
"""Numbers that a network may allocate beyond four times its weights: tables of its own, and a teacher beside it."""
OF_A_TENSOR = 4096
"""Numbers that a tensor counts for at least: the module around it takes as much, and time."""
_FACTORIES = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye, torch.arange, torch.linspace,
    torch.randperm, torch.logspace, torch.empty_strided, torch.tril_indices, torch.triu_indices,
}  # fmt: skip
_SIZES = {
    torch.Tensor.repeat, torch.Tensor.new_empty, torch.Tensor.new_zeros, torch.Tensor.new_ones, torch.Tensor.new_full,
    torch.tile,
}  # fmt: skip


class _Allocations(TorchFunctionMode):
    """Adds up what is about to be allocated, before it is."""

    def __init__(self, most: int, where: str) -> None:
        super().__init__()
        self.most, self.where, self.total = most, where, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES and "out" not in kwargs:
            self._count(func(*args, **{**kwargs, "device": "meta"}).numel())
        elif func in _SIZES:
            self._count(func(args[0].to("meta"), *args[1:], **kwargs).numel())
        return func(*args, **kwargs)

    def _count(self, numbers: int) -> None:
        self.total += max(numbers, OF_A_TENSOR)
        if self.total > self.most:
            raise InputError(
                f"{self.where} describes a network of {self.total:,} numbers or more, where {self.most:,} are allowed "
                "by the weights that it holds: it is not built"
            )


@contextmanager
def allocating_at_most(numbers: int | None, where: str) -> Iterator[None]:
    """Within this block, torch's constructors of tensors may make so many numbers in all; None for no limit.

    Raises:
        InputError: before more are allocated.
    """
    if numbers is None:
        yield
        return
    with _Allocations(numbers, where):
        yield


def count_numbers(content: Any, where: str) -> int:
    """How many numbers a file's content holds in its tensors, those that several of them share counted once."""
    stored: dict[int, int] = {}
    for value in nested_values(content, where):
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes() // max(value.element_size(), 1)
    return sum(stored.values())
