"""The base class of the methods that train nothing: they evaluate networks that are trained already."""

from abc import abstractmethod
from typing import Any, Never

from torch import nn

from distill_lightning.methods.base import Method
from distill_lightning.ranges import Finite


class Untrained(Method):
    """A method that trains nothing.

    Args:
        class_bias: see Method.
    """

    trains = False

    def __init__(self, class_bias: dict[str | int, Finite] | None = None) -> None:
        super().__init__(nn.Identity(), class_bias=class_bias)

    @abstractmethod
    def setup(self, stage: str) -> None:
        """Opens the networks and sets the one to evaluate; then see Method."""
        super().setup(stage)

    def training_loss(self, batch: Any, position: Any) -> Never:
        """There is none.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{type(self).__name__} trains nothing")
