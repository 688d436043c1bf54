"""Which parameters an optimizer gets, and in which groups."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


def default_optimizer(parameters: Iterable[Any]) -> Optimizer:
    """SGD as is usual for CIFAR."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


def parameter_groups(parameters: Iterable[nn.Parameter], decay_norms_and_biases: bool) -> list[dict[str, Any]]:
    """Groups for an optimizer, of the parameters that are trained.

    Args:
        parameters: of the network, and of what is trained beside it.
        decay_norms_and_biases: whether weight decay acts on norms and biases (parameters of one dimension) as well.
    """
    trained = [p for p in parameters if p.requires_grad]
    if decay_norms_and_biases:
        return [{"params": trained}]
    return [
        {"params": [p for p in trained if p.ndim > 1]},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(make: Callable[[Iterable[Any]], Optimizer], groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer, each of whose groups remembers the learning rate that schedules start from (``initial_lr``)."""
    optimizer = make(groups)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer
