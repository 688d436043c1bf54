"""DenseNet for small pictures, without bottlenecks (Huang et al. 2017, arXiv:1608.06993, section 3).

DenseNet-40-12 has 1,019,722 parameters with 10 classes, DenseNet-100-12 7.0 million, as in the paper's table 2. (The
DLB repository's, with bottlenecks and compression, are others: 188,092 and 800,032 with 100 classes.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """BN, ReLU, 3x3 convolution to ``growth`` channels, appended to what came in."""

    def __init__(self, channels: int, growth: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, growth, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.dropout(self.conv(F.relu(self.norm(x))))], 1)


class SmallDenseNet(nn.Module):
    """Three blocks of dense layers, with 1x1 convolutions and 2x2 average pooling between them.

    Args:
        num_classes, in_channels: of the data.
        depth: 3 n + 4, with n layers a block.
        growth: channels that each layer adds.
        dropout: probability of dropping a feature after each convolution; the paper uses 0.2 without augmentation.

    Raises:
        ValueError: the depth is not 3 n + 4.
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, depth: int = 40, growth: int = 12, dropout: float = 0.0
    ) -> None:
        super().__init__()
        layers, rest = divmod(depth - 4, 3)
        if rest or layers < 1:
            raise ValueError(f"depth is {depth}: it must be 3 n + 4, as 22, 40, 100")
        channels = 16
        parts: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)]
        for block in range(3):
            for _ in range(layers):
                parts.append(DenseLayer(channels, growth, dropout))
                channels += growth
            parts += [nn.BatchNorm2d(channels), nn.ReLU()]
            if block < 2:
                parts += [nn.Conv2d(channels, channels, 1, bias=False), nn.Dropout(dropout), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*parts)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.flatten(F.adaptive_avg_pool2d(self.features(images), 1), 1))
        return logits


class DenseNet40(SmallDenseNet):
    """DenseNet-40-12."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__(num_classes, in_channels, 40, 12, dropout)


class DenseNet100(SmallDenseNet):
    """DenseNet-100-12."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__(num_classes, in_channels, 100, 12, dropout)
