"""Pruning masks as pure functions of weights: {name: bool tensor of the weight's shape}, True for a kept weight.

The number of kept weights is computed first, from sizes, rate and round alone. Then a stable sort by magnitude decides
which weights are kept. So the number does not depend on ties, half precision or a threshold, and all processes that
hold the same weights compute the same masks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

Masks = dict[str, Tensor]


def ones(weights: Mapping[str, Tensor]) -> Masks:
    """Masks that keep all weights."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def kept_after(count: int, rate: float, rounds: int) -> int:
    """The number of weights that are kept, out of ``count``, after ``rounds`` rounds of pruning.

    Each round prunes the share ``rate`` of the weights that are still kept. The number is computed from the full count,
    so that rounding errors do not add up over the rounds.
    """
    return round(count * (1 - rate) ** rounds)


def rate_factor(counts: Mapping[str, int], rates: Mapping[str, float], rounds: int, density: float) -> float:
    """The factor for all rates with which ``rounds`` rounds of pruning reach the density ``density``.

    Args:
        counts: the number of weights of each tensor.
        rates: the relative pruning rate of each tensor.
        rounds: the number of rounds, 1 or more.
        density: the share of weights to keep, in (0, 1).

    Raises:
        ValueError: the density cannot be reached.
    """
    total = sum(counts.values())

    def reached(factor: float) -> float:
        left = (counts[k] * max(0.0, 1 - min(1.0, factor * rates[k])) ** rounds for k in counts)
        return sum(left) / total

    low, high = 0.0, 1 / max(rates.values())
    if not reached(high) < density < 1:
        raise ValueError(f"a density of {density} cannot be reached: it must lie between {reached(high):.4f} and 1")
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) > density else (low, middle)
    return (low + high) / 2


def smallest(weights: Mapping[str, Tensor], masks: Masks, keep: int) -> Masks:
    """Prunes the kept weights that have the smallest magnitudes. All tensors share one ranking.

    Args:
        weights: the weights by name.
        masks: the masks so far, with the same names and shapes.
        keep: the number of weights to keep, at most the number that ``masks`` keeps.

    Returns:
        New masks with the same names. Among weights of equal magnitude, the first ones are pruned.

    Raises:
        ValueError: ``keep`` is larger than the number of weights that ``masks`` keeps.
    """
    alive = torch.cat([masks[name].flatten() for name in weights])
    size = torch.cat([weight.detach().flatten().abs() for weight in weights.values()])
    positions = alive.nonzero().flatten()
    drop = len(positions) - keep
    if drop < 0:
        raise ValueError(f"{keep} of {len(positions)} weights cannot be kept")
    dropped = positions[size[positions].sort(stable=True).indices[:drop]]
    alive = alive.clone()
    alive[dropped] = False
    parts = alive.split([masks[name].numel() for name in weights])
    return {name: part.view(masks[name].shape) for name, part in zip(weights, parts, strict=True)}


def random_like(masks: Masks, generator: torch.Generator, pooled: bool = False) -> Masks:
    """Random masks that keep the same number of weights as ``masks``.

    Args:
        masks: masks on the CPU.
        generator: the generator that the random masks are drawn with.
        pooled: whether the number is the same only for all tensors together, as in random pruning of the whole network.
            By default it is the same for each tensor.
    """

    def draw(mask: Tensor) -> Tensor:
        order = torch.randperm(mask.numel(), generator=generator)
        return mask.flatten()[order].view(mask.shape)

    if not pooled:
        return {name: draw(mask) for name, mask in masks.items()}
    together = draw(torch.cat([mask.flatten() for mask in masks.values()]))
    parts = together.split([mask.numel() for mask in masks.values()])
    return {name: part.view(masks[name].shape) for name, part in zip(masks, parts, strict=True)}


def density(masks: Mapping[str, Tensor]) -> float:
    """The share of weights that are kept, in [0, 1]."""
    return sum(int(mask.count_nonzero()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


def overlap(first: Masks, second: Masks) -> float:
    """The Jaccard index, in [0, 1]: the number of weights that both masks keep, divided by the number that at least one
    of them keeps. It is 1 if neither keeps any.
    """
    both = sum(int((first[name] & second[name]).count_nonzero()) for name in first)
    either = sum(int((first[name] | second[name]).count_nonzero()) for name in first)
    return both / either if either else 1.0


def pack(mask: Tensor) -> Tensor:
    """Packs a mask of n elements, of any shape, into uint8 (ceil(n / 8),). The first of 8 goes into the highest bit."""
    flags = mask.flatten().to(torch.uint8)
    flags = torch.nn.functional.pad(flags, (0, -len(flags) % 8)).view(-1, 8)
    return (flags << torch.arange(7, -1, -1, dtype=torch.uint8, device=flags.device)).sum(1, dtype=torch.uint8)


def pack_all(masks: Masks) -> dict[str, Tensor]:
    """Packs each mask with ``pack``."""
    return {name: pack(mask) for name, mask in masks.items()}


def unpack_all(packed: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Masks:
    """Unpacks each mask to the shape of the tensor in ``like`` with the same name."""
    return {name: unpack(mask, like[name].shape) for name, mask in packed.items()}


def unpack(packed: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The inverse of ``pack``: a bool mask of the given shape."""
    bits = (packed[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)) & 1
    count = torch.Size(shape).numel()
    return bits.flatten()[:count].bool().view(shape)
