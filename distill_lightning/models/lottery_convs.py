"""Conv-2, Conv-4 and Conv-6: small VGGs (Frankle & Carbin 2019, arXiv:1803.03635, figure 2), for 32x32 pictures.

They have pairs of 3x3 convolutions, a 2x2 max pooling after each pair, two linear layers of 256 units, and a linear
output layer. The initial weights have Glorot's normal distribution and the biases are 0 (appendix G). Conv-2 has 4.3
million parameters, Conv-4 has 2.4 million and Conv-6 has 2.3 million. (The paper gives 1.7 million for Conv-6, which
contradicts the densities in the paper.)
"""

from torch import nn

from distill_lightning.ranges import Count, Ranged


class LotteryConv(Ranged, nn.Sequential):
    """A network with two convolutions for each width.

    Args:
        num_classes: K, from the data.
        in_channels: C, from the data.
        image_size: the side of the pictures in pixels, from the data; at least 2 to the power of the number of pairs.
        widths: the channels of each pair of convolutions.
    """

    def __init__(self, num_classes: Count, in_channels: Count, image_size: Count, widths: tuple[Count, ...]) -> None:
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
    """Two convolutions, with 64 channels."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3, image_size: Count = 32) -> None:
        super().__init__(num_classes, in_channels, image_size, (64,))


class Conv4(LotteryConv):
    """Four convolutions, with 64, 64, 128 and 128 channels."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3, image_size: Count = 32) -> None:
        super().__init__(num_classes, in_channels, image_size, (64, 128))


class Conv6(LotteryConv):
    """Six convolutions, with 64, 64, 128, 128, 256 and 256 channels."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3, image_size: Count = 32) -> None:
        super().__init__(num_classes, in_channels, image_size, (64, 128, 256))
