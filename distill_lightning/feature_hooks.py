"""Hooks that catch what passes through a part of a network."""

from typing import Any

from torch import Tensor, nn


class FeatureHook:
    """Holds what a module was last given, or gave out, in training, until it is taken.

    Args:
        inputs: whether to hold what goes in, instead of what comes out.
    """

    def __init__(self, inputs: bool = False) -> None:
        self.inputs = inputs
        self._held: Tensor | None = None

    def watch(self, module: nn.Module) -> None:
        """From now on, holds what passes through this module. A copy of the module gets a hook of its own."""
        module.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module.training:
            self._held = inputs[0] if self.inputs else output

    def take(self) -> Tensor:
        """What is held, which is then let go.

        Raises:
            RuntimeError: nothing has passed since it was last taken.
        """
        held, self._held = self._held, None
        if held is None:
            raise RuntimeError("no batch has passed through the module that is watched, in training mode")
        return held

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureHook, (self.inputs,)  # copied and pickled without what it holds
