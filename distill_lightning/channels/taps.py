"""The output of a layer, by a hook that ends the forward pass there."""

from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.features import channels_last, find_layer


class _ReachedError(Exception):
    """Ends a forward pass at the layer."""


class Tap:
    """Gives the output of a layer as maps: (B, C, H, W).

    Tokens (B, N, C) become maps of N rows and one column, vectors (B, C) maps of one cell. Maps (B, H, W, C), as of
    Swin, get their channels first. The output is that of the layer itself, also if a later in-place ReLU would change
    it, because the pass ends at the layer.

    Args:
        network: the network; it is set to eval mode.
        layer: a module path or a word, see `distill_lightning.features`.
        picture: one picture as the network gets it, (1, C, H, W).

    Raises:
        InputError: there is no such layer; it is not used for a picture, or used more than once; or it gives no maps.
    """

    def __init__(self, network: nn.Module, layer: str, picture: Tensor) -> None:
        self.network, self.layer = network.eval(), layer
        self._module, self._is_input = find_layer(network, layer)
        name, calls = type(network).__name__, 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        handle = self._module.register_forward_hook(count)
        try:
            with torch.no_grad():
                network(picture)
        finally:
            handle.remove()
        if calls == 0:
            raise InputError(f"the layer {layer} of {name} is not used for a picture: give another layer")
        if calls > 1:
            raise InputError(
                f"the layer {layer} of {name} is used {calls} times for a picture, as one ReLU for several "
                "convolutions: give the block that contains it"
            )
        _, *size = picture.shape
        self._last = channels_last(network, layer, (size[0], size[1], size[2]))
        self.shape = tuple(self(picture).shape[1:])
        """(C, H, W) of the maps."""

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """The maps (B, C, H, W) for what the network gets, (B, C', H', W').

        Raises:
            InputError: the layer gives no tensor of 2 to 4 dimensions.
        """
        held: list[Any] = []

        def hold(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            held.append(given[0] if self._is_input else output)
            raise _ReachedError

        handle = self._module.register_forward_hook(hold)
        try:
            self.network(inputs)
        except _ReachedError:
            pass
        finally:
            handle.remove()
        value = held[0] if held else None
        if not isinstance(value, Tensor) or value.ndim not in (2, 3, 4):
            raise InputError(f"the layer {self.layer} gives no maps of channels: give another layer")
        if value.ndim == 2:
            return value[:, :, None, None].float()
        if value.ndim == 4:
            return (value.movedim(-1, 1) if self._last else value).float()
        return value.transpose(1, 2)[..., None].float()
