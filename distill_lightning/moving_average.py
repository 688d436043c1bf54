"""Exponential moving averages of tensors by name: a <- d a + (1 - d) theta.

An average is kept in float32, or in float64 for tensors in float64. In bfloat16, a step of (1 - d) (theta - a) with
d = 0.999 is usually less than half the distance to the next number, so the average would stay where it is.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def as_average(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first average of tensors: a copy of each, in float32 or float64. Whole numbers keep their type."""
    return {name: value.detach().to(_type(value), copy=True) for name, value in values.items()}


@torch.no_grad()
def move_average(average: Mapping[str, Tensor], values: Mapping[str, Tensor], decay: float) -> None:
    """Moves an average, in place. Whole numbers, such as a count of batches, are copied.

    Args:
        average: a, see ``as_average``.
        values: theta, with the same names.
        decay: d, the weight of the old average, in [0, 1].
    """
    for name, value in values.items():
        if value.is_floating_point():
            average[name].lerp_(value.to(average[name].dtype), 1 - decay)
        else:
            average[name].copy_(value)


def _type(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32) if value.is_floating_point() else value.dtype
