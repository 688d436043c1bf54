"""The default optimizer, and the parameter groups of an optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from distill_lightning.errors import InputError


def default_optimizer(parameters: Iterable[Any]) -> Optimizer:
    """SGD with the settings that are usual for CIFAR."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


def parameter_groups(parameters: Iterable[nn.Parameter], decay_norms_and_biases: bool) -> list[dict[str, Any]]:
    """The parameter groups for an optimizer. They contain the parameters that require a gradient.

    Args:
        parameters: the parameters of the network and of the modules that are trained with it.
        decay_norms_and_biases: whether weight decay also acts on norms and biases (parameters with at most one
            dimension).
    """
    trained = [p for p in parameters if p.requires_grad]
    if decay_norms_and_biases:
        return [{"params": trained}]
    return [
        {"params": [p for p in trained if p.ndim > 1]},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(make: Callable[[Iterable[Any]], Optimizer], groups: list[dict[str, Any]]) -> Optimizer:
    """Makes the optimizer. Each group keeps its initial learning rate, as ``initial_lr``, for the schedule.

    Raises:
        InputError: torch refuses an option of the optimizer.
    """
    try:
        optimizer = make(groups)
    except (ValueError, TypeError) as error:  # torch refuses an option, and names it
        raise InputError(f"model.optimizer: {error}") from error
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer
