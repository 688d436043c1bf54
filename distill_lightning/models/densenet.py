"""DenseNet for small pictures, without bottlenecks (Huang et al. 2017, arXiv:1608.06993, section 3).

With 10 classes DenseNet-40-12 has 1,019,722 parameters and DenseNet-100-12 has 7.0 million, as in table 2 of the paper.
(The networks of these names in the DLB repository have bottlenecks and compression, and 188,092 and 800,032 parameters
with 100 classes.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.ranges import Count, Fraction, Ranged


class DenseLayer(Ranged, nn.Module):
    """Batch norm, ReLU and a 3x3 convolution with ``growth`` output channels, which are appended to the input."""

    def __init__(self, channels: Count, growth: Count, dropout: Fraction) -> None:
        super().__init__()
        self.norm, self.activation = nn.BatchNorm2d(channels), nn.ReLU()
        self.conv = nn.Conv2d(channels, growth, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, channels + growth, H, W)."""
        return torch.cat([x, self.dropout(self.conv(self.activation(self.norm(x))))], 1)


class SmallDenseNet(Ranged, nn.Module):
    """Three blocks of dense layers, with 1x1 convolutions and 2x2 average pooling between them.

    Args:
        num_classes: K, from the data.
        in_channels: C, from the data.
        depth: the number of layers, 3 n + 4 with n dense layers in each block.
        growth: the number of channels that each dense layer adds.
        dropout: the probability of dropping a feature after each convolution; the paper uses 0.2 without augmentation.

    Raises:
        InputError: ``depth`` is not 3 n + 4 with n >= 1.
    """

    def __init__(
        self,
        num_classes: Count = 10,
        in_channels: Count = 3,
        depth: Count = 40,
        growth: Count = 12,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        layers, rest = divmod(depth - 4, 3)
        if rest or layers < 1:
            raise InputError(f"SmallDenseNet.depth is {depth}: it must be 3 n + 4, for example 22, 40 or 100")
        channels = 16
        parts: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)]
        exits: list[str] = []
        for block in range(3):
            for _ in range(layers):
                parts.append(DenseLayer(channels, growth, dropout))
                channels += growth
            parts += [nn.BatchNorm2d(channels), nn.ReLU()]
            exits.append(f"features.{len(parts) - 1}")
            if block < 2:
                parts += [nn.Conv2d(channels, channels, 1, bias=False), nn.Dropout(dropout), nn.AvgPool2d(2)]
        self.features, self.exits = nn.Sequential(*parts), tuple(exits)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, C, H, W)."""
        logits: Tensor = self.head(torch.flatten(F.adaptive_avg_pool2d(self.features(images), 1), 1))
        return logits


class DenseNet40(SmallDenseNet):
    """DenseNet-40-12."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3, dropout: Fraction = 0.0) -> None:
        super().__init__(num_classes, in_channels, 40, 12, dropout)


class DenseNet100(SmallDenseNet):
    """DenseNet-100-12."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3, dropout: Fraction = 0.0) -> None:
        super().__init__(num_classes, in_channels, 100, 12, dropout)
