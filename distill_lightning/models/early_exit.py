"""Early exits of a network: its first layers with their own classifier.

A network defines its exits in ``exits``: the names of modules, the deepest last, whose outputs are feature maps
(B, C, H, W). The children of the network must be in the order in which it calls them.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.models.outputs import input_type
from distill_lightning.ranges import Count, Ranged
from distill_lightning.weights import of_model


def exit_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the exits of a network.

    Raises:
        InputError: the network defines fewer than two exits.
    """
    names = getattr(network, "exits", ())
    if len(names) < 2:
        raise InputError(f"{type(network).__name__} names no exits: take a ResNet or VGG of this program")
    return tuple(names)


def trunk(network: nn.Module, last: str) -> nn.Sequential:
    """The layers of a network up to and including the module ``last``, with the same names and the same weights.

    The children of the network, and those of each module on the path, must be in the order in which they are called.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    outer, _, inner = last.partition(".")
    for name, child in network.named_children():
        parts[name] = trunk(child, inner) if name == outer and inner else child
        if name == outer:
            break
    return nn.Sequential(parts)


@torch.no_grad()
def feature_shapes(network: nn.Module, in_channels: int, image_size: int) -> list[tuple[int, int]]:
    """The channels and the height of the feature map at each exit, for square pictures of ``image_size`` pixels."""
    features = torch.zeros(1, in_channels, image_size, image_size).to(*input_type(network))
    training, shapes = network.training, []
    network.eval()
    for name in exit_names(network):
        at_exit = trunk(network, name)(features)
        shapes.append((at_exit.shape[1], at_exit.shape[2]))
    network.train(training)
    return shapes


class ExitHead(Ranged, nn.Module):
    """A bottleneck for each later stage, pooling, and a linear classifier. It has as many features as the deepest exit.

    Args:
        shapes: (channels, height) of the feature maps at this exit and at all deeper exits.
        num_classes: K.
    """

    def __init__(self, shapes: list[tuple[Count, Count]], num_classes: Count) -> None:
        super().__init__()
        self.bottlenecks = nn.Sequential(
            *(self._bottleneck(n_in, n_out, -(-high // low)) for (n_in, high), (n_out, low) in pairwise(shapes))
        )
        self.head = nn.Linear(shapes[-1][0], num_classes)

    @staticmethod
    def _bottleneck(n_in: int, n_out: int, stride: int) -> nn.Sequential:
        inner = max(1, n_out // 4)
        layers: list[nn.Module] = []
        for a, b, size, step in ((n_in, inner, 1, 1), (inner, inner, 3, stride), (inner, n_out, 1, 1)):
            layers += [nn.Conv2d(a, b, size, step, size // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, at_exit: Tensor) -> tuple[Tensor, Tensor]:
        """Computes logits from a feature map (B, C, H, W).

        Returns:
            The logits (B, K), and the input of the linear layer (B, D).
        """
        features = pooled(self.bottlenecks(at_exit))
        return self.head(features), features


def pooled(features: Tensor) -> Tensor:
    """The mean over the positions of a feature map: (B, C, H, W) to (B, C)."""
    return torch.flatten(F.adaptive_avg_pool2d(features, 1), 1)


class EarlyExit(Ranged, nn.Module):
    """The smaller network that ends at an early exit. Its weights come from a checkpoint of the method BYOT.

    Args:
        network: the network with the exits. Its own weights are not used.
        exit: the number of the exit, from 1. The deepest exit is the whole network and is not allowed here.
        num_classes: K, from the data.
        in_channels: C, from the data.
        image_size: the side of the pictures in pixels, from the data.

    Raises:
        InputError: the network does not have this exit.
    """

    def __init__(
        self, network: nn.Module, exit: Count, num_classes: Count = 10, in_channels: Count = 3, image_size: Count = 32
    ) -> None:
        super().__init__()
        names = exit_names(network)
        if not 1 <= exit < len(names):
            raise InputError(f"exit is {exit}: {type(network).__name__} has the exits 1 to {len(names) - 1}")
        self.exit = exit
        self.trunk = trunk(network, names[exit - 1])
        self.head = ExitHead(feature_shapes(network, in_channels, image_size)[exit - 1 :], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, C, H, W)."""
        logits: Tensor = self.head(self.trunk(images))[0]
        return logits

    def weights_in(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Selects the weights of this network from the state dict of a method.

        Args:
            weights: the state dict of BYOT, or of a method that trained this network itself.

        Returns:
            The weights by their names in this network. Missing ones are left out.
        """
        head = f"heads.{self.exit - 1}."
        if not any(name.startswith(head) for name in weights):
            return of_model(weights)
        mine = {name: weights.get(f"model.{name.removeprefix('trunk.')}") for name in self.state_dict()}
        mine |= {f"head.{k.removeprefix(head)}": v for k, v in weights.items() if k.startswith(head)}
        return {name: value for name, value in mine.items() if value is not None}
