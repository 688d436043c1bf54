"""Exits on the way through a network: its front, and a classifier on what comes out there.

A network names its exits in ``exits``: modules, deepest last, whose output is a map of features (B, C, H, W). Its
children stand in the order in which it calls them.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.errors import InputError


def exit_names(network: nn.Module) -> tuple[str, ...]:
    """The network's own. Raises InputError where it names none."""
    names = getattr(network, "exits", ())
    if len(names) < 2:
        raise InputError(f"{type(network).__name__} names no exits: take a ResNet or VGG of this program")
    return tuple(names)


def trunk(network: nn.Module, last: str) -> nn.Sequential:
    """The network up to a module of it, under the same names."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    outer, _, inner = last.partition(".")
    for name, child in network.named_children():
        is_cut = name == outer and inner and isinstance(child, nn.Sequential)
        parts[name] = child[: int(inner) + 1] if is_cut else child  # type: ignore[index]
        if name == outer:
            break
    return nn.Sequential(parts)


@torch.no_grad()
def feature_shapes(network: nn.Module, in_channels: int, image_size: int) -> list[tuple[int, int]]:
    """Channels and height of the features at each exit."""
    parameter = next(network.parameters())
    features = torch.zeros(1, in_channels, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    training, shapes = network.training, []
    network.eval()
    for name in exit_names(network):
        at_exit = trunk(network, name)(features)
        shapes.append((at_exit.shape[1], at_exit.shape[2]))
    network.train(training)
    return shapes


class ExitHead(nn.Module):
    """A bottleneck for each stage that is left out, and a linear classifier of as many features as the deepest's.

    Args:
        shapes: of the features at this exit and at all deeper ones.
        num_classes: of the data.
    """

    def __init__(self, shapes: list[tuple[int, int]], num_classes: int) -> None:
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
        """Logits (B, K) and what goes into the linear layer (B, D)."""
        features = pooled(self.bottlenecks(at_exit))
        return self.head(features), features


def pooled(features: Tensor) -> Tensor:
    """The mean over the map: (B, C, H, W) to (B, C)."""
    return torch.flatten(F.adaptive_avg_pool2d(features, 1), 1)


class EarlyExit(nn.Module):
    """The smaller network that ends at an exit. Takes its weights from a checkpoint of the method BYOT.

    Args:
        network: whose exits; any weights it has are not used.
        exit: which, from 1; the deepest is the network itself, and not meant here.
        num_classes, in_channels, image_size: of the data.
    """

    def __init__(
        self, network: nn.Module, exit: int, num_classes: int = 10, in_channels: int = 3, image_size: int = 32
    ) -> None:
        super().__init__()
        names = exit_names(network)
        if not 1 <= exit < len(names):
            raise InputError(f"exit is {exit}: {type(network).__name__} has the exits 1 to {len(names) - 1}")
        self.exit = exit
        self.trunk = trunk(network, names[exit - 1])
        self.head = ExitHead(feature_shapes(network, in_channels, image_size)[exit - 1 :], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(images))[0]
        return logits

    def weights_in(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its own weights out of a method's, where they are BYOT's."""
        head = f"heads.{self.exit - 1}."
        if not any(name.startswith(head) for name in weights):
            return {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
        mine = {name: weights.get(f"model.{name.removeprefix('trunk.')}") for name in self.state_dict()}
        mine |= {f"head.{k.removeprefix(head)}": v for k, v in weights.items() if k.startswith(head)}
        return {name: value for name, value in mine.items() if value is not None}
