"""Float32 for losses whose values leave the range of float16, or lose their digits in bfloat16."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """A function that computes in float32, under autocast too. Its arguments that are float16 or bfloat16, tensors and
    lists of tensors, become float32; float64 stays.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        given = [*args, *kwargs.values()]
        one_by_one = [one for value in given for one in (value if isinstance(value, list | tuple) else [value])]
        first = next(one for one in one_by_one if isinstance(one, Tensor))
        with torch.autocast(first.device.type, enabled=False):
            return function(*map(_full, args), **{name: _full(value) for name, value in kwargs.items()})

    return called


def _full(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_full(one) for one in value]
    is_half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if is_half else value
