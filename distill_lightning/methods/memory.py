"""The state that a method keeps between steps."""

import copy
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn


def put_rows(table: Tensor, index: Tensor, rows: Tensor) -> None:
    """Overwrites rows of a table. If an index is there several times, its last row counts, on every device.

    Args:
        table: (N, ...), which is changed.
        index: (n,) int64, on the device of the table. Balanced batches have a sample several times.
        rows: (n, ...), on the device of the table, of any precision.
    """
    places, inverse = index.unique(return_inverse=True)
    order = torch.arange(len(index), device=index.device)
    last = torch.zeros_like(places).scatter_reduce_(0, inverse, order, "amax", include_self=False)
    table[places] = rows[last].to(table.dtype)


class Memory:
    """Access to the attributes of a method that the checkpoint contains in addition to the weights.

    Args:
        method: the method.
        own: names of attributes that differ between processes.
        shared: names of attributes that are equal on all processes.
    """

    def __init__(self, method: nn.Module, own: Sequence[str], shared: Sequence[str]) -> None:
        self._method, self._own, self._shared = method, own, shared
        self._blank = {name: copy.deepcopy(getattr(method, name)) for name in (*own, *shared)}

    def forget(self) -> None:
        """Resets all attributes to the values that they had when this object was made."""
        self.take_up(self._blank)

    def own(self) -> dict[str, Any]:
        """The attributes of this process that differ between processes, on the CPU, by name."""
        return self.on_cpu({name: getattr(self._method, name) for name in self._own})

    def shared(self) -> dict[str, Any]:
        """The attributes that are equal on all processes, on the CPU, by name."""
        return self.on_cpu({name: getattr(self._method, name) for name in self._shared})

    def take_up(self, values: dict[str, Any]) -> None:
        """Sets attributes to copies of the given values, by name."""
        for name, value in values.items():
            setattr(self._method, name, copy.deepcopy(value))

    @staticmethod
    def on_cpu(state: dict[str, Any]) -> dict[str, Any]:
        """The state with its tensors on the CPU."""
        moved: dict[str, Any] = pl.utilities.move_data_to_device(state, torch.device("cpu"))
        return moved
