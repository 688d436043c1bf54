"""Layer-sequential unit variance (Mishkin & Matas 2016, arXiv:1511.06422, algorithm 1)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.initializers.rules import Initializer
from distill_lightning.ranges import Count, Positive

MOST_TIMES = 5
"""How often a layer is scaled at most."""


class LSUV(Initializer):
    """Orthonormal weights, then, layer by layer from the input, W <- W / std(output), until the standard deviation of
    the layer's output over the first training pictures is 1 (Mishkin & Matas 2016, arXiv:1511.06422, algorithm 1).

    The pictures are the first of the training samples that the run takes, without augmentation, with its preprocessing.
    The network runs in training mode, without dropout, and its buffers stay as they are. The scale of a layer depends
    on the layers before it, also on those that other rules draw. A layer that these pictures do not reach, or that
    gives 0 for all of them, keeps its orthonormal weights. Biases are not touched: most often they should be 0.

    Args:
        params: see Initializer.
        tolerance: how far from 1 the standard deviation may be. Each layer is scaled five times at most.
        pictures: the number of pictures, or all training samples if there are fewer.
        only: see Initializer.
    """

    def __init__(
        self,
        params: str = "*.weight",
        tolerance: Positive = 0.02,
        pictures: Count = 256,
        only: list[str] | None = None,
    ) -> None:
        super().__init__(params, only)
        self.tolerance, self.pictures = tolerance, pictures

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        if len(shape) < 2:
            raise InputError("LSUV needs two dimensions or more")
        return nn.init.orthogonal_(torch.empty(shape), generator=generator)

    @torch.no_grad()
    def adjust(self, network: nn.Module, drawn: Mapping[str, nn.Module], images: Tensor) -> None:
        reached: list[nn.Module] = []
        _run(network, images, {layer: lambda layer, _: reached.append(layer) for layer in drawn.values()})
        weights = {network.get_submodule(name.rpartition(".")[0]): network.get_parameter(name) for name in drawn}
        for layer in dict.fromkeys(reached):  # in the order in which they are computed
            for _ in range(MOST_TIMES):
                std = _spread(network, layer, images)
                if not 0 < std < float("inf") or abs(std - 1) < self.tolerance:
                    break
                weights[layer].div_(std)


def _spread(network: nn.Module, layer: nn.Module, images: Tensor) -> float:
    """The standard deviation of all numbers that a layer gives."""
    found: list[float] = []
    _run(network, images, {layer: lambda _, out: found.append(float(out.double().std(correction=0)))})
    return found[0]  # of its first use, if it is used several times


def _run(network: nn.Module, images: Tensor, watched: Mapping[nn.Module, Any]) -> None:
    """Computes a network in training mode without dropout, and changes nothing. Each watcher gets its layer, and what
    the layer gives.
    """
    handles = [
        module.register_forward_hook(lambda layer, _, out, watch=watch: watch(layer, out))
        for module, watch in watched.items()
    ]
    modes = {module: module.training for module in network.modules()}
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
            torch.func.functional_call(network, buffers, (images,))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
