"""Residual networks for 32x32 pictures (He et al. 2016, arXiv:1512.03385, section 4.2), and ResNet-18/34 for this size.

The networks are those of the distillation literature on CIFAR-100: basic blocks, and shortcuts with a 1x1 convolution.
With 100 classes ResNet-20 has 278,324 parameters and ResNet-8x4 has 1,233,540. The DLB repository has two networks with
bottlenecks whose names mean other networks elsewhere: "resnet110" and "wide_resnet20_8". They are
``BottleneckResNet110`` and ``WideResNet20x8`` here.
"""

from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import StochasticDepth

from distill_lightning.errors import InputError
from distill_lightning.ranges import BelowOne, Count, Ranged


def _conv3x3(n_in: int, n_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)


class _DroppedBasicBlock(BasicBlock):  # type: ignore[misc]  # torchvision has no types
    """A basic block whose branch is left out for some samples in training, with the probability ``drop``."""

    def __init__(self, *args: Any, drop: float) -> None:
        super().__init__(*args)
        self.drop = StochasticDepth(drop, "row")

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the shortcut and the branch, through ReLU."""
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        summed: Tensor = self.relu(self.drop(branch) + shortcut)
        return summed


class CIFARResNet(Ranged, nn.Module):
    """Three stages of basic blocks, or of bottlenecks, at full, half and quarter resolution.

    Args:
        num_classes: K, from the data.
        in_channels: C, from the data.
        depth: the number of layers: 6 n + 2 with n basic blocks in each stage, or 9 n + 2 with n bottlenecks.
        widths: the channels of the stem and of the three stages. The output of a stage of bottlenecks has four times as
            many.
        bottleneck: the factor between the width of a stage and the channels of the 3x3 convolution in its bottlenecks;
            None for basic blocks.
        stochastic_depth: p, for basic blocks: in training, the branch of block l of L is left out for a sample with the
            probability p l / L, and divided by 1 - p l / L otherwise (Huang et al. 2016, arXiv:1603.09382).

    Raises:
        InputError: ``depth`` is not 6 n + 2 (or 9 n + 2 with bottlenecks) with n >= 1, or bottlenecks have stochastic
            depth.
    """

    exits = ("stages.0", "stages.1", "stages.2")
    later_options: ClassVar[dict[str, float]] = {"stochastic_depth": 0.0}

    def __init__(
        self,
        num_classes: Count = 10,
        in_channels: Count = 3,
        depth: Count = 20,
        widths: tuple[Count, Count, Count, Count] = (16, 16, 32, 64),
        bottleneck: Count | None = None,
        stochastic_depth: BelowOne = 0.0,
    ) -> None:
        super().__init__()
        if stochastic_depth and bottleneck is not None:
            raise InputError("CIFARResNet.stochastic_depth is for basic blocks: leave it or bottleneck out")
        layers = 6 if bottleneck is None else 9
        blocks, rest = divmod(depth - 2, layers)
        if rest or blocks < 1:
            raise InputError(
                f"CIFARResNet.depth is {depth}: it must be {layers} n + 2, for example {layers + 2} or {2 * layers + 2}"
            )
        self.stem = nn.Sequential(_conv3x3(in_channels, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        outputs = [widths[0], *(width if bottleneck is None else 4 * width for width in widths[1:])]
        drops = [stochastic_depth * block / (3 * blocks) for block in range(1, 3 * blocks + 1)]
        self.stages = nn.Sequential(
            *(
                self._stage(
                    outputs[i], outputs[i + 1], widths[i + 1], stride, bottleneck, drops[i * blocks : (i + 1) * blocks]
                )
                for i, stride in enumerate((1, 2, 2))
            )
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(outputs[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(
        n_in: int, n_out: int, width: int, stride: int, bottleneck: int | None, drops: list[float]
    ) -> nn.Sequential:
        def block(n_in: int, drop: float, stride: int = 1, shortcut: nn.Module | None = None) -> nn.Module:
            if drop:
                return _DroppedBasicBlock(n_in, width, stride, shortcut, drop=drop)
            if bottleneck is None:
                basic: nn.Module = BasicBlock(n_in, width, stride, shortcut)
                return basic
            narrow: nn.Module = Bottleneck(n_in, width, stride, shortcut, base_width=64 * bottleneck)
            return narrow

        shortcut = None
        if stride != 1 or n_in != n_out:
            shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        return nn.Sequential(block(n_in, drops[0], stride, shortcut), *(block(n_out, drop) for drop in drops[1:]))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, C, H, W)."""
        logits: Tensor = self.head(self.pool(self.stages(self.stem(images))))
        return logits


class ResNet8(CIFARResNet):
    """One block per stage; 78,042 parameters with 10 classes."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3) -> None:
        super().__init__(num_classes, in_channels, depth=8)


class ResNet20(CIFARResNet):
    """Three blocks per stage; 272,474 parameters with 10 classes."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3, stochastic_depth: BelowOne = 0.0) -> None:
        super().__init__(num_classes, in_channels, depth=20, stochastic_depth=stochastic_depth)


class ResNet32(CIFARResNet):
    """Five blocks per stage."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3, stochastic_depth: BelowOne = 0.0) -> None:
        super().__init__(num_classes, in_channels, depth=32, stochastic_depth=stochastic_depth)


class ResNet56(CIFARResNet):
    """Nine blocks per stage."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3, stochastic_depth: BelowOne = 0.0) -> None:
        super().__init__(num_classes, in_channels, depth=56, stochastic_depth=stochastic_depth)


class ResNet110(CIFARResNet):
    """Eighteen basic blocks per stage. The "resnet110" of the DLB repository is ``BottleneckResNet110``."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3, stochastic_depth: BelowOne = 0.0) -> None:
        super().__init__(num_classes, in_channels, depth=110, stochastic_depth=stochastic_depth)


class BottleneckResNet110(CIFARResNet):
    """Twelve bottlenecks per stage: "resnet110" of the DLB repository, 1,170,868 parameters with 100 classes."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3) -> None:
        super().__init__(num_classes, in_channels, depth=110, bottleneck=1)


class WideResNet20x8(CIFARResNet):
    """Two bottlenecks per stage, whose 3x3 convolutions are eight times as wide: "wide_resnet20_8" of the DLB
    repository, 6,871,220 parameters with 100 classes.
    """

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3) -> None:
        super().__init__(num_classes, in_channels, depth=20, bottleneck=8)


class ResNet8x4(CIFARResNet):
    """ResNet-8 with stages of four times the width and a stem of twice the width."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3) -> None:
        super().__init__(num_classes, in_channels, depth=8, widths=(32, 64, 128, 256))


class ResNet32x4(CIFARResNet):
    """ResNet-32 with stages of four times the width and a stem of twice the width."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3) -> None:
        super().__init__(num_classes, in_channels, depth=32, widths=(32, 64, 128, 256))


class _SmallPictures(Ranged, ResNet):  # type: ignore[misc]  # torchvision has no types
    """A ResNet of torchvision with a 3x3 stem of stride 1 and no max pooling, as is usual for 32x32 pictures."""

    exits = ("layer1", "layer2", "layer3", "layer4")

    def __init__(self, blocks: list[int], num_classes: Count, in_channels: Count) -> None:
        super().__init__(BasicBlock, blocks, num_classes=num_classes)
        self.conv1 = _conv3x3(in_channels, 64)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()


class ResNet18(_SmallPictures):
    """11,173,962 parameters with 10 classes."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3) -> None:
        super().__init__([2, 2, 2, 2], num_classes, in_channels)


class ResNet34(_SmallPictures):
    """21,282,122 parameters with 10 classes."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3) -> None:
        super().__init__([3, 4, 6, 3], num_classes, in_channels)
