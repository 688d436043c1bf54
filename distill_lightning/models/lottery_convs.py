"""Conv-2, Conv-4 and Conv-6: small VGGs (Frankle & Carbin 2019, arXiv:1803.03635, figure 2), for 32x32 pictures.

Pairs of 3x3 convolutions, each followed by 2x2 max pooling, then two linear layers of 256 and the output. Weights are
drawn from Glorot's normal distribution, biases are zero (appendix G). Conv-2 has 4.3 million parameters, Conv-4 2.4;
Conv-6 has 2.3 (the paper prints 1.7, which its own densities contradict).
"""

from torch import nn


class LotteryConv(nn.Sequential):
    """Two convolutions for each width.

    Args:
        num_classes, in_channels, image_size: of the data; the size must be divisible by 2 for each pair.
        widths: channels of each pair.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: int, widths: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        channels, size = in_channels, image_size
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            channels, size = width, size // 2
        layers += [nn.Flatten(), nn.Linear(channels * size**2, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
        super().__init__(*layers, nn.Linear(256, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)


class Conv2(LotteryConv):
    """64, 64."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> None:
        super().__init__(num_classes, in_channels, image_size, (64,))


class Conv4(LotteryConv):
    """64, 64, 128, 128."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> None:
        super().__init__(num_classes, in_channels, image_size, (64, 128))


class Conv6(LotteryConv):
    """64, 64, 128, 128, 256, 256."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> None:
        super().__init__(num_classes, in_channels, image_size, (64, 128, 256))
