"""Masks that are found before any training.

    snip        |w dL/dw| on the first batch; the largest are kept (Lee, Ajanthan & Torr 2019, arXiv:1810.02340, eq. 5
                and algorithm 1, where they are divided by their sum, which changes no order)
    synflow     w dR/dw with R = 1^T prod_l |W_l| 1, the sum of the outputs for an input of ones with all weights
                positive and no biases; in 100 steps, step k keeps the share density^(k / 100) (Tanaka et al. 2020,
                arXiv:2006.05467, algorithm 1). It needs no data
    magnitude   |w|
    random      any weights, each with equal probability

All layers share one ranking. Batch norm has the statistics of the batch for "snip", and those of its start (0 and 1)
for "synflow"; dropout is off. The network is not changed.
"""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.distributed import sum_over_processes
from distill_lightning.errors import InputError
from distill_lightning.masks import Masks, random_like, smallest
from distill_lightning.models.outputs import main_output
from distill_lightning.seeds import PRUNE, run_seed, seed_for
from distill_lightning.values import Batch

AtStart = Literal["snip", "synflow", "magnitude", "random"]
STEPS = 100
"""The number of steps in which "synflow" prunes."""


def masks_at_start(kind: AtStart, network: nn.Module, whole: Masks, density: float, batch: Batch) -> Masks:
    """The masks of an untrained network.

    Args:
        kind: see the top of this file.
        network: the network.
        whole: masks of ones on the CPU, by the names of the parameters that are pruned.
        density: the share of these weights to keep, in (0, 1).
        batch: the first training batch, for "snip".

    Raises:
        InputError: nothing would be left, or no weight has a finite score.
    """
    count = sum(mask.numel() for mask in whole.values())
    keep = round(density * count)
    if not keep:
        raise InputError(f"Lottery.density is {density}: it leaves none of {count} weights")
    if kind == "synflow":
        found = whole
        for step in range(1, STEPS + 1):
            found = smallest(synflow(network, found, batch.images.shape[1:]), found, kept_at(step, density, count))
        return found
    if kind == "snip":
        return smallest(snip(network, whole, batch), whole, keep)
    parameters = dict(network.named_parameters())
    found = smallest({name: parameters[name].detach().cpu() for name in whole}, whole, keep)
    if kind == "magnitude":
        return found
    return random_like(found, torch.Generator().manual_seed(seed_for(PRUNE, run_seed())), pooled=True)


def kept_at(step: int, density: float, count: int) -> int:
    """The number of weights that "synflow" keeps in a step, from 1: round(count density^(step / 100))."""
    share: float = density ** (step / STEPS)
    return round(count * share)


@torch.enable_grad()
def snip(network: nn.Module, names: Masks, batch: Batch) -> dict[str, Tensor]:
    """The scores |w dL/dw| with the cross-entropy L of the new samples of all processes, by the parameter's name."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    images, targets = batch.images[: batch.num_new], batch.targets[: batch.num_new]
    loss = batch.weight * F.cross_entropy(main_output(network(images)).float(), targets)
    parameters = dict(network.named_parameters())
    weights = [parameters[name] for name in names]
    gradients = _gradients(loss, dict(zip(names, weights, strict=True)), "snip")
    scores = [(w.detach() * sum_over_processes(g)).abs().cpu() for w, g in zip(weights, gradients, strict=True)]
    return _finite(dict(zip(names, scores, strict=True)), "snip")


@torch.enable_grad()
def synflow(network: nn.Module, masks: Masks, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The scores w dR/dw, float64, by the parameter's name.

    Args:
        network: the network.
        masks: which weights are left, on the CPU.
        shape: (C, H, W), the shape of a picture.
    """
    network = copy.deepcopy(network).cpu().double().eval()
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(parameter.abs() * (not name.endswith("bias")))
            if name in masks:
                parameter.mul_(masks[name])
    weights = [parameters[name] for name in masks]
    flow = main_output(network(torch.ones(1, *shape, dtype=torch.float64))).sum()
    gradients = _gradients(flow, dict(zip(masks, weights, strict=True)), "synflow")
    scores = [w.detach() * g for w, g in zip(weights, gradients, strict=True)]
    return _finite(dict(zip(masks, scores, strict=True)), "synflow")


def _gradients(score: Tensor, weights: dict[str, Tensor], kind: str) -> list[Tensor]:
    """The gradients of a score, by weight.

    Raises:
        InputError: the output does not depend on a weight, as on those of auxiliary classifiers.
    """
    gradients = torch.autograd.grad(score, list(weights.values()), allow_unused=True)
    unused = next((name for name, gradient in zip(weights, gradients, strict=True) if gradient is None), None)
    if unused is not None:
        raise InputError(
            f"Lottery.at_start is {kind}: the output does not depend on {unused}: name it in Lottery.leave_out"
        )
    return list(gradients)


def _finite(scores: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    if not all(bool(one.isfinite().all()) for one in scores.values()):
        raise InputError(f"Lottery.at_start is {kind}: the scores of this network are not finite; take another one")
    return scores
