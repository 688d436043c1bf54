"""Masks as pure functions of weights: {name: bool tensor of the weight's shape}, True for what is kept.

Count first, then pick: how many weights stay is an integer that follows from sizes, rate and round alone, and which
ones is a stable order of their magnitudes. Ties, half precision and thresholds have no say, and every process that
holds the same weights comes to the same masks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

Masks = dict[str, Tensor]


def ones(weights: Mapping[str, Tensor]) -> Masks:
    """Everything is kept."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def kept_after(count: int, rate: float, rounds: int) -> int:
    """How many of ``count`` weights are left after so many rounds that take the share ``rate`` of what is left.

    From the full count each time: rounding does not add up over the rounds.
    """
    return round(count * (1 - rate) ** rounds)


def rate_factor(counts: Mapping[str, int], rates: Mapping[str, float], rounds: int, density: float) -> float:
    """What to multiply the rates by, so that this density is left after so many rounds.

    Args:
        counts: weights of each tensor.
        rates: of each, relative to one another.
        rounds: 1 or more.
        density: in (0, 1).

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
    """Prunes the weights of least magnitude among those that are kept, over all the tensors together.

    Args:
        weights: by name.
        masks: what is kept so far, of the same names and shapes.
        keep: how many stay, at most as many as are kept so far.

    Returns:
        New masks of those names. Of equal magnitudes the ones that come first are pruned.
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
    """Masks that keep as many weights, drawn at random.

    Args:
        masks: on the CPU.
        generator: of the draw.
        pooled: as many over all tensors together, instead of in each: what a random pruning of all would give.
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
    """Jaccard's index: the weights that both keep, of those that either does."""
    both = sum(int((first[name] & second[name]).count_nonzero()) for name in first)
    either = sum(int((first[name] | second[name]).count_nonzero()) for name in first)
    return both / either if either else 1.0


def pack(mask: Tensor) -> Tensor:
    """Eight flags to a byte, the first in the highest bit. bool of any shape to uint8 (ceil(n / 8),)."""
    flags = mask.flatten().to(torch.uint8)
    flags = torch.nn.functional.pad(flags, (0, -len(flags) % 8)).view(-1, 8)
    return (flags << torch.arange(7, -1, -1, dtype=torch.uint8, device=flags.device)).sum(1, dtype=torch.uint8)


def pack_all(masks: Masks) -> dict[str, Tensor]:
    return {name: pack(mask) for name, mask in masks.items()}


def unpack_all(packed: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Masks:
    """The masks of the shapes of the tensors of that name."""
    return {name: unpack(mask, like[name].shape) for name, mask in packed.items()}


def unpack(packed: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The mask of that shape."""
    bits = (packed[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)) & 1
    count = torch.Size(shape).numel()
    return bits.flatten()[:count].bool().view(shape)
