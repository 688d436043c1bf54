"""Networks with fewer channels in some layers, as pruning whole channels leaves them."""

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.ranges import Count, Ranged

KINDS: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
"""The layers whose widths can be given."""


def width_of(layer: nn.Module) -> list[int] | None:
    """The widths of a layer: [outputs, inputs, groups] of a convolution, [outputs, inputs] of a linear layer, and
    [channels] of a batch norm; None for other layers.
    """
    if isinstance(layer, nn.Conv2d):
        return [layer.out_channels, layer.in_channels, layer.groups]
    if isinstance(layer, nn.Linear):
        return [layer.out_features, layer.in_features]
    return [layer.num_features] if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) else None


class Narrowed(Ranged, nn.Module):
    """A network in which some layers have other widths. ``distill compress`` makes it, and loads its weights.

    Args:
        network: the network with the usual widths.
        widths: the widths of the layers that differ, by the layer's name: [outputs, inputs, groups] of a convolution,
            [outputs, inputs] of a linear layer, [channels] of a batch norm.

    Raises:
        InputError: there is no such layer, or its widths are not of this form.
    """

    def __init__(self, network: nn.Module, widths: dict[str, list[Count]]) -> None:
        super().__init__()
        layers = dict(network.named_modules())
        for name, width in widths.items():
            before = width_of(layers[name]) if name in layers else None
            if before is None or len(before) != len(width) or min(width) < 1:
                raise InputError(f"Narrowed.widths has {width} for {name}: {type(network).__name__} has no such layer")
            _narrow(layers[name], width)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, C, H, W)."""
        logits: Tensor = self.network(images)
        return logits


def _narrow(layer: nn.Module, width: list[int]) -> None:
    """Gives a layer other widths, and new initial values."""
    if isinstance(layer, nn.Conv2d):
        layer.out_channels, layer.in_channels, layer.groups = width
        layer.weight = nn.Parameter(torch.empty(width[0], width[1] // width[2], *layer.kernel_size))
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = width
        layer.weight = nn.Parameter(torch.empty(width))
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        (layer.num_features,) = width
        for name in ("weight", "running_mean", "running_var"):
            if getattr(layer, name) is not None:
                value = torch.empty(width)
                setattr(layer, name, nn.Parameter(value) if name == "weight" else value)
    else:
        raise InputError(f"a {type(layer).__name__} has no width: expected {', '.join(k.__name__ for k in KINDS)}")
    if getattr(layer, "bias", None) is not None:
        layer.bias = nn.Parameter(torch.empty(width[0]))
    layer.reset_parameters()
