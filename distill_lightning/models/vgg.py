"""VGG with batch norm for small pictures (Simonyan & Zisserman 2015, arXiv:1409.1556), with a single linear layer.

Each of five stages has 3x3 convolutions and a 2x2 max pooling. Global average pooling follows, so the size of the
pictures can be 32x32 or 64x64. These are the networks that CIFAR papers call VGG-16 and VGG-19; they have 14,728,266
and 20,040,522 parameters with 10 classes. (Those of the DLB repository have three linear layers, and 15,299,748 and
20,612,004 parameters with 100 classes.)
"""

import torch
from torch import Tensor, nn

from distill_lightning.ranges import Count, CountOrZero, Ranged

WIDTHS = (64, 128, 256, 512, 512)


class SmallVGG(Ranged, nn.Module):
    """A VGG with a given number of convolutions in each stage.

    Args:
        num_classes: K, from the data.
        in_channels: C, from the data.
        convolutions: the number of convolutions in each of the five stages.
    """

    exits = tuple(f"stages.{number}" for number in range(len(WIDTHS)))

    def __init__(self, num_classes: Count, in_channels: Count, convolutions: tuple[CountOrZero, ...]) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = in_channels
        for width, count in zip(WIDTHS, convolutions, strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, C, H, W)."""
        logits: Tensor = self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(self.stages(images), 1), 1))
        return logits


class VGG16(SmallVGG):
    """Thirteen convolutions and a linear layer."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3) -> None:
        super().__init__(num_classes, in_channels, (2, 2, 3, 3, 3))


class VGG19(SmallVGG):
    """Sixteen convolutions and a linear layer."""

    def __init__(self, num_classes: Count = 10, in_channels: Count = 3) -> None:
        super().__init__(num_classes, in_channels, (2, 2, 4, 4, 4))
