"""What belongs to the step that is rewound to, and going back there."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from distill_lightning.distributed import gather_objects
from distill_lightning.methods.base import Method

RewindPoint = dict[str, Any]
"""Plain data, for the checkpoint: the network's ``weights``; what the method trains ``beside`` it; the state of the
``optimizer``, where it is kept; what every process remembered (``memory``), and what all do (``shared``)."""


def rewind_point(method: Method, optimizer: Optimizer | None, beside: bool) -> RewindPoint:
    """What is there now. All processes ask together.

    Args:
        method: whose weights and memory.
        optimizer: whose state is kept; None for a fresh one.
        beside: whether what the method trains beside its network is rewound with it.
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
    """Goes back.

    Args:
        method: whose weights and memory.
        point: as above.
        optimizers: of the run.
        weights: whether the weights go back; what is remembered always does.
        fresh: whether the optimizer's state is emptied.
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
    """A copy on the CPU, at any depth, that shares nothing with what goes on training."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {k: copied(v) for k, v in value.items()}
    return [copied(v) for v in value] if isinstance(value, list | tuple) else value


@torch.no_grad()
def put(mine: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Writes weights into a module's own tensors, parameters and buffers."""
    for name, tensor in mine.items():
        tensor.copy_(weights[name])


def beside_network(method: Method) -> dict[str, Tensor]:
    """What a method trains beside its network."""
    return {name: tensor for name, tensor in method.state_dict().items() if not name.startswith("model.")}
