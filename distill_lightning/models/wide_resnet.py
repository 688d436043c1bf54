"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv:1605.07146), for 32x32 pictures.

The blocks are pre-activation blocks of two 3x3 convolutions, with optional dropout between them. WRN-28-10 has
36,536,884 parameters with 100 classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.ranges import Count, Fraction, Ranged


class WideBlock(Ranged, nn.Module):
    """A pre-activation block: twice batch norm, ReLU and a 3x3 convolution.

    The shortcut is the identity. If stride or number of channels change, it is a 1x1 convolution of the activated
    input.

    Args:
        n_in: the input channels.
        n_out: the output channels.
        stride: the stride of the first convolution.
        dropout: the probability of dropping a feature between the convolutions.
    """

    def __init__(self, n_in: Count, n_out: Count, stride: Count, dropout: Fraction) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(n_in), nn.BatchNorm2d(n_out)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.activation1, self.activation2 = nn.ReLU(), nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.shortcut = None
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) to (B, n_out, H / stride, W / stride)."""
        active = self.activation1(self.norm1(x))
        residual = self.conv2(self.dropout(self.activation2(self.norm2(self.conv1(active)))))
        output: Tensor = residual + (x if self.shortcut is None else self.shortcut(active))
        return output


class WideResNet(Ranged, nn.Module):
    """Three stages of wide blocks.

    Args:
        num_classes: K, from the data.
        in_channels: C, from the data.
        depth: the number of layers, 6 n + 4 with n blocks in each stage.
        widen: the widening factor k: the stages have 16 k, 32 k and 64 k channels.
        dropout: the probability of dropping a feature between the convolutions of a block.

    Raises:
        InputError: ``depth`` is not 6 n + 4 with n >= 1.
    """

    def __init__(
        self,
        num_classes: Count = 10,
        in_channels: Count = 3,
        depth: Count = 28,
        widen: Count = 10,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise InputError(f"WideResNet.depth is {depth}: it must be 6 n + 4, for example 16, 22 or 28")
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)]
        for n_in, n_out, stride in zip(widths, widths[1:], (1, 2, 2), strict=False):
            layers += [
                WideBlock(n_in if n == 0 else n_out, n_out, stride if n == 0 else 1, dropout) for n in range(blocks)
            ]
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(widths[3]), nn.ReLU())
        # the sums at the ends of the first two stages, and the last map after its ReLU
        self.exits = tuple(f"features.{end}" for end in (blocks, 2 * blocks, 3 * blocks + 2))
        self.head = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, C, H, W)."""
        logits: Tensor = self.head(torch.flatten(F.adaptive_avg_pool2d(self.features(images), 1), 1))
        return logits
