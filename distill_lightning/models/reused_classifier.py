"""The network that SimKD deploys: a student up to its last map, a projector, and the classifier of its teacher."""

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.models.early_exit import pooled, trunk
from distill_lightning.ranges import Count, Ranged
from distill_lightning.weights import of_model


def projector(channels: int, of_teacher: int, reduction: int) -> nn.Sequential:
    """A bottleneck from maps of a student to those of its teacher: convolutions 1x1, 3x3, 1x1, each with batch norm and
    ReLU.

    Args:
        channels: the channels of the student's map.
        of_teacher: those of the teacher's.
        reduction: how many times fewer channels than the teacher's map the 3x3 convolution has.
    """
    inner = max(1, of_teacher // reduction)
    layers: list[nn.Module] = []
    for n_in, n_out, size in ((channels, inner, 1), (inner, inner, 3), (inner, of_teacher, 1)):
        layers += [nn.Conv2d(n_in, n_out, size, 1, size // 2, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers)


class ReusedClassifier(Ranged, nn.Module):
    """The layers of a network up to its last map, a projector, and the linear layer of a teacher on the mean over the
    positions. The method SimKD makes and trains it; the teacher's linear layer is not trained.

    Args:
        network: the student. Its layers after ``layer`` are not used.
        layer: the module path of its last map. The children of the student up to it must be in the order in which they
            are called.
        channels: the channels of the student's map.
        teacher_channels: the channels of the teacher's map.
        reduction: how many times fewer channels than the teacher's map the projector has inside.
        bias: whether the teacher's linear layer has a bias.
        num_classes: K, from the data.

    Raises:
        InputError: the student has no such layer.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        channels: Count,
        teacher_channels: Count,
        reduction: Count = 2,
        bias: bool = True,
        num_classes: Count = 10,
    ) -> None:
        super().__init__()
        if layer not in dict(network.named_modules()):
            raise InputError(f"ReusedClassifier.layer is {layer}: {type(network).__name__} has no such layer")
        self.trunk = trunk(network, layer)
        self.projector = projector(channels, teacher_channels, reduction)
        self.classifier = nn.Linear(teacher_channels, num_classes, bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, C, H, W)."""
        logits: Tensor = self.classifier(pooled(self.projector(self.trunk(images))))
        return logits

    def weights_in(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Selects the weights of this network from the state dict of a method: those of SimKD, or those of a method
        that trained the student. Missing ones are left out.
        """
        own = of_model(weights)
        if any(name.startswith("trunk.") for name in own):
            return own
        mine = {name: own.get(name.removeprefix("trunk.")) for name in self.state_dict() if name.startswith("trunk.")}
        return {name: value for name, value in mine.items() if value is not None}


@torch.no_grad()
def take_classifier(network: ReusedClassifier, classifier: nn.Linear) -> None:
    """Copies a teacher's linear layer into the network, and freezes it there."""
    network.classifier.load_state_dict(classifier.state_dict())
    network.classifier.requires_grad_(False)
