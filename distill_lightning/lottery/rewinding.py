"""Saves the state of training at the rewind point, and returns to it."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from distill_lightning.distributed import gather_objects
from distill_lightning.methods.base import Method

RewindPoint = dict[str, Any]
"""The state at the rewind point, as plain data for the checkpoint. ``weights`` are the network's, and ``beside`` are
the other parameters and buffers of the method. ``optimizer`` is the optimizer's state, or None. ``memory`` is the
memory of the method on each process, and ``shared`` is the part of it that is the same on all."""


def rewind_point(method: Method, optimizer: Optimizer | None, beside: bool) -> RewindPoint:
    """Copies the current state. This is a collective: all processes call it together.

    Args:
        method: the method whose weights and memory are copied.
        optimizer: the optimizer whose state is copied; None copies no state.
        beside: whether to copy the method's parameters beside the network (heads, peers), which are then rewound too.
    """
    memory = method.remembered.own()
    return {
        "weights": copied(method.model.state_dict()),
        "beside": copied(beside_network(method)) if beside else {},
        "optimizer": None if optimizer is None else copied(optimizer.state_dict()),
        "memory": gather_objects(copied(memory)) if memory else [],
        "shared": copied(method.remembered.shared()),
    }


def rewind(method: Method, point: RewindPoint, optimizers: list[Optimizer], weights: bool, fresh: bool) -> None:
    """Returns to the rewind point. The method's memory is always rewound.

    Args:
        method: the method whose weights and memory are rewound.
        point: the state that ``rewind_point`` has copied.
        optimizers: the optimizers of the run.
        weights: whether the weights are rewound too.
        fresh: whether the optimizers' state is cleared; if not, the copied state is loaded, if there is one.
    """
    if weights:
        put(method.model.state_dict(), point["weights"])
        put(beside_network(method), point["beside"])
    for optimizer in optimizers:
        if fresh:
            optimizer.state.clear()
        elif point["optimizer"] is not None:
            optimizer.load_state_dict(copied(point["optimizer"]))
    own = point["memory"][method.global_rank] if point["memory"] else {}
    method.remembered.take_up(pl.utilities.move_data_to_device(copied(own), method.device) | point["shared"])


def copied(value: Any) -> Any:
    """A deep copy on the CPU, which shares no memory with the original."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {k: copied(v) for k, v in value.items()}
    return [copied(v) for v in value] if isinstance(value, list | tuple) else value


@torch.no_grad()
def put(mine: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Writes ``weights`` into the tensors of a module.

    Args:
        mine: the module's parameters and buffers, by name.
        weights: a tensor of the same shape for each of them.
    """
    for name, tensor in mine.items():
        tensor.copy_(weights[name])


def beside_network(method: Method) -> dict[str, Tensor]:
    """The parameters and buffers that a method has beside its network, by name."""
    return {name: tensor for name, tensor in method.state_dict().items() if not name.startswith("model.")}
