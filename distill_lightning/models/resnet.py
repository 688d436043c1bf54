"""Residual networks for 32x32 pictures (He et al. 2016, arXiv:1512.03385, section 4.2), and ResNet-18/34 for them.

The parameter counts are those of the networks that the CIFAR-100 distillation literature compares (shortcuts with a
1x1 convolution, basic blocks): ResNet-20 278,324, ResNet-8x4 1,233,540 with 100 classes.
"""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet


def _conv3x3(n_in: int, n_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)


class CIFARResNet(nn.Module):
    """Three stages of basic blocks at full, half and quarter resolution.

    Args:
        num_classes, in_channels: of the data.
        depth: 6 n + 2, with n blocks a stage.
        widths: channels of the stem and of the three stages.

    Raises:
        ValueError: the depth is not 6 n + 2.
    """

    exits = ("stages.0", "stages.1", "stages.2")

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        depth: int = 20,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth is {depth}: it must be 6 n + 2, as 8, 14, 20")
        self.stem = nn.Sequential(_conv3x3(in_channels, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        self.stages = nn.Sequential(
            *(self._stage(widths[i], widths[i + 1], blocks, stride) for i, stride in enumerate((1, 2, 2)))
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(n_in: int, n_out: int, blocks: int, stride: int) -> nn.Sequential:
        shortcut = None
        if stride != 1 or n_in != n_out:
            shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        first = BasicBlock(n_in, n_out, stride, shortcut)
        return nn.Sequential(first, *(BasicBlock(n_out, n_out) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.stages(self.stem(images))))


class ResNet8(CIFARResNet):
    """78,042 parameters with 10 classes."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, depth=8)


class ResNet20(CIFARResNet):
    """272,474 parameters with 10 classes."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, depth=20)


class ResNet32(CIFARResNet):
    """Five blocks a stage."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, depth=32)


class ResNet56(CIFARResNet):
    """Nine blocks a stage."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, depth=56)


class ResNet110(CIFARResNet):
    """Eighteen basic blocks a stage; the network of that name in the DLB repository is another."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, depth=110)


class ResNet8x4(CIFARResNet):
    """ResNet-8 of four times the width."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, depth=8, widths=(32, 64, 128, 256))


class ResNet32x4(CIFARResNet):
    """ResNet-32 of four times the width."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, depth=32, widths=(32, 64, 128, 256))


class _SmallPictures(ResNet):
    """torchvision's, with a 3x3 stem of stride 1 and no pooling, as usual for 32x32."""

    exits = ("layer1", "layer2", "layer3", "layer4")

    def __init__(self, blocks: list[int], num_classes: int, in_channels: int) -> None:
        super().__init__(BasicBlock, blocks, num_classes=num_classes)
        self.conv1 = _conv3x3(in_channels, 64)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()


class ResNet18(_SmallPictures):
    """11,173,962 parameters with 10 classes."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__([2, 2, 2, 2], num_classes, in_channels)


class ResNet34(_SmallPictures):
    """21,282,122 parameters with 10 classes."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__([3, 4, 6, 3], num_classes, in_channels)
