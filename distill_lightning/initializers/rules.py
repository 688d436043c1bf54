"""Initialisers: the first weights of a network, by rules for the names of its parameters.

    initializer=[Constant("*.bias"), Gaussian("head.weight", std=0.01), MSRA("*.weight")]

The first rule that matches a parameter draws it; a parameter that no rule matches keeps the weights that the network
gave itself. Each tensor has a generator of its own, seeded with (seed of the run, name of the parameter). So another
rule or another layer changes no other tensor, and all processes draw the same.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Generator, Tensor, nn

from distill_lightning.errors import InputError, nearest
from distill_lightning.recorded import Recorded
from distill_lightning.seeds import BUILD, seed_for

LAYERS = ("Conv?d", "ConvTranspose?d", "Linear")
"""The kinds of layers that a rule acts on by default."""


class Initializer(Recorded, ABC):
    """Draws the first weights of the parameters that match a pattern.

    Args:
        params: the pattern, as for ``fnmatch``, of the names of the network's parameters.
        only: patterns of classes. A parameter is drawn only if its layer is of such a class or of a subclass. By
            default Conv?d, ConvTranspose?d and Linear, since norms have weights, too. ["*"] for all.
    """

    pictures: int = 0
    """The number of pictures that ``adjust`` needs; 0 for a rule that only draws."""

    def __init__(self, params: str = "*.weight", only: list[str] | None = None) -> None:
        self.params, self.only = params, tuple(LAYERS if only is None else only)

    def takes(self, name: str, layer: nn.Module, inside: nn.Module | None) -> bool:
        """Whether the rule matches a parameter.

        Args:
            name: its name.
            layer: the module whose parameter it is.
            inside: the module that contains ``layer``; None if that is the network itself.
        """
        kinds = [kind.__name__ for kind in type(layer).__mro__ if kind not in (nn.Module, object)]
        return fnmatchcase(name, self.params) and any(fnmatchcase(kind, one) for kind in kinds for one in self.only)

    @abstractmethod
    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        """The first weights.

        Args:
            shape: (out, in, ...) for layers, (n,) for biases; transposed convolutions are (in, out, ...).
            layer: the module whose parameter it is.
            generator: what all random numbers are drawn from.

        Returns:
            A float tensor of ``shape``, on the CPU.

        Raises:
            InputError: the rule cannot draw this shape.
        """

    def adjust(self, network: nn.Module, drawn: Mapping[str, nn.Module], images: Tensor) -> None:
        """Changes what the rule has drawn, after all rules have, if it needs ``pictures``. By default nothing.

        Args:
            network: the network.
            drawn: the layer of each parameter that this rule has drawn, by the name of the parameter.
            images: (N, C, H, W), as the network gets them.
        """


def initialise(
    networks: Mapping[str, nn.Module],
    rules: list[Initializer],
    seed: int,
    first_pictures: Callable[[int], Tensor] | None = None,
) -> None:
    """Draws the first weights of networks. The buffers, and what no rule matches, stay as they are.

    Args:
        networks: the networks, by the prefix of the names that their tensors are drawn by. Patterns do not see it.
        rules: the first that matches a parameter draws it.
        seed: the seed of the run.
        first_pictures: gives so many pictures, (N, C, H, W), as the networks get them; None if there are none.

    Raises:
        InputError: a rule has nothing to draw, or cannot draw the shape of a parameter that it matches; or it needs
            pictures, and there are none.
    """
    chosen = {
        prefix + name: (parameter, layer, next((r for r in rules if r.takes(name, layer, inside)), None))
        for prefix, network in networks.items()
        for name, parameter, layer, inside in _parameters(network)
    }
    used = {id(rule) for _, _, rule in chosen.values()}
    for number, one in enumerate(rules):
        if id(one) not in used:
            raise InputError(f"initializer[{number}]: {_unused(one, networks)}")
    for name, (parameter, layer, rule) in chosen.items():
        if rule is None:
            continue
        generator = torch.Generator().manual_seed(seed_for(BUILD, seed, zlib.crc32(name.encode())))
        try:
            values = rule.values(parameter.shape, layer, generator)
        except InputError as error:
            shape = "x".join(map(str, parameter.shape))
            raise InputError(f"initializer {type(rule).__name__} cannot draw {name} ({shape}): {error}") from error
        with torch.no_grad():
            parameter.copy_(values)
    for one in rules:
        if not one.pictures:
            continue
        if first_pictures is None:
            raise InputError(f"{type(one).__name__} needs pictures: use a data module of distill_lightning")
        images = first_pictures(one.pictures)
        for prefix, network in networks.items():
            names = {n: prefix + n for n, _ in network.named_parameters()}
            drawn = {n: chosen[full][1] for n, full in names.items() if chosen[full][2] is one}
            one.adjust(network, drawn, images.to(next(network.parameters()).device))


def _parameters(network: nn.Module) -> list[tuple[str, nn.Parameter, nn.Module, nn.Module | None]]:
    found = []
    for name, parameter in network.named_parameters():
        path = name.rpartition(".")[0]
        inside = network.get_submodule(path.rpartition(".")[0]) if path else None
        found.append((name, parameter, network.get_submodule(path), inside))
    return found


def _unused(rule: Initializer, networks: Mapping[str, nn.Module]) -> str:
    listed = [one for network in networks.values() for one in _parameters(network)]
    names, network = [name for name, *_ in listed], type(next(iter(networks.values()))).__name__
    if any(rule.takes(name, layer, inside) for name, _, layer, inside in listed):
        return f"all that {rule.params} matches is drawn by earlier rules: leave it out, or move it up"
    if kinds := sorted({type(layer).__name__ for name, _, layer, _ in listed if fnmatchcase(name, rule.params)}):
        return f"{rule.params} matches parameters of {', '.join(kinds[:3])} alone: give only={kinds[:1]}"
    return f"{rule.params} matches no parameter of {network} ({', '.join(names[:2])}, ...){nearest(rule.params, names)}"
