"""Limits the memory of networks from files. A network that is too large is refused before the memory is allocated."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from distill_lightning.errors import InputError
from distill_lightning.files import nested_values

SLACK = 1 << 27
"""Numbers that a network may allocate in addition to four times its weights, for buffers and for a teacher."""
OF_A_TENSOR = 4096
"""The smallest count for a tensor, in numbers: the module that holds a small tensor takes memory and time, too."""
_FACTORIES = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye, torch.arange, torch.linspace,
    torch.randperm, torch.logspace, torch.empty_strided, torch.tril_indices, torch.triu_indices,
}  # fmt: skip
_SIZES = {
    torch.Tensor.repeat, torch.Tensor.new_empty, torch.Tensor.new_zeros, torch.Tensor.new_ones, torch.Tensor.new_full,
    torch.tile,
}  # fmt: skip


class TooLargeError(InputError):
    """A network is too large for its file."""


class _Allocations(TorchFunctionMode):
    """Counts the numbers of each tensor before the tensor is allocated."""

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
            raise TooLargeError(
                f"{self.where} describes a network of {self.total:,} numbers or more, where {self.most:,} are allowed "
                "for the weights in the file: it is not built"
            )


@contextmanager
def allocating_at_most(numbers: int | None, where: str) -> Iterator[None]:
    """Within this block, limits the numbers in all tensors that torch allocates together.

    Args:
        numbers: the limit; None for no limit.
        where: the file, for the error.

    Raises:
        InputError: a tensor would exceed the limit. It is raised before the tensor is allocated.
    """
    if numbers is None:
        yield
        return
    with _Allocations(numbers, where):
        yield


def count_numbers(content: Any, where: str) -> int:
    """The count of numbers in all tensors of a file's content. Memory that several tensors share counts once.

    Args:
        content: the content of the file.
        where: the file, for the error.

    Raises:
        InputError: see ``nested_values``.
    """
    stored: dict[int, int] = {}
    for value in nested_values(content, where):
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes() // max(value.element_size(), 1)
    return sum(stored.values())
