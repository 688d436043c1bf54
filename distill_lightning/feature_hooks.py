"""Hooks that store the input or the output of a module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class FeatureHook:
    """Holds the last output of a module until ``take`` is called. In evaluation it holds nothing, unless it says so.

    Evaluation is in eval mode and without gradients: in training, parts of a network may be in eval mode, too.

    Args:
        inputs: whether to hold the input of the module instead of its output.
        in_eval: whether to hold it in evaluation, too.
        copies: whether to hold a copy of the input, made before the module is called. A module that changes its input
            in place, such as ReLU(inplace=True), needs it.
    """

    def __init__(self, inputs: bool = False, in_eval: bool = False, copies: bool = False) -> None:
        self.inputs, self.in_eval, self.copies = inputs, in_eval, copies
        self._parts = 1
        self._held: Tensor | None = None

    def watch(self, module: nn.Module) -> RemovableHandle:
        """Registers this hook with a module. A deep copy of the module gets its own hook."""
        return module.register_forward_pre_hook(self) if self.copies else module.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None = None) -> Tensor | None:
        if module.training or torch.is_grad_enabled() or self.in_eval:
            if self.copies:
                self._held = inputs[0].clone()
            else:
                self._held = inputs[0] if self.inputs else output
            if self._parts > 1:
                assert output is not None
                return output[: len(output) // self._parts]
        return None

    @contextmanager
    def passing_on_first_of(self, parts: int) -> Iterator[None]:
        """Within this block, only the first of ``parts`` equal parts of the rows of an output is passed on to the
        modules that follow. All rows are held.
        """
        self._parts = parts
        try:
            yield
        finally:
            self._parts = 1

    def take(self) -> Tensor:
        """Returns the held tensor and releases it.

        Raises:
            RuntimeError: no batch has passed through the module in training since the last call.
        """
        held, self._held = self._held, None
        if held is None:
            raise RuntimeError("no batch has passed through the watched module in training")
        return held

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy or a pickle does not contain the held tensor
        return FeatureHook, (self.inputs, self.in_eval, self.copies)
