"""A small convolutional network, for 8x8, 28x28 or 32x32 pictures."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from distill_lightning.ranges import Count, Fraction, Ranged


class ConvNet(Ranged, nn.Sequential):
    """Three 3x3 convolutions with batch norm (the last two with stride 2), global average pooling, and a linear layer.

    Args:
        num_classes: K, from the data.
        in_channels: C, from the data.
        width: the channels of the first convolution; the others have twice and four times as many.
        dropout: probability of dropping a feature before the last layer.
        norm: whether batch norm follows each convolution; without it, the convolutions have biases.
    """

    later_options: ClassVar[Mapping[str, Any]] = {"norm": True}

    def __init__(
        self,
        num_classes: Count = 10,
        in_channels: Count = 1,
        width: Count = 16,
        dropout: Fraction = 0.0,
        norm: bool = True,
    ) -> None:
        widths = [in_channels, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for n_in, n_out, stride in zip(widths, widths[1:], (1, 2, 2), strict=False):
            norms = [nn.BatchNorm2d(n_out)] if norm else []
            layers += [nn.Conv2d(n_in, n_out, 3, stride, 1, bias=not norm), *norms, nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1], num_classes)]
        super().__init__(*layers)
        self.exits = ("2", "5", "8") if norm else ("1", "3", "5")
