"""Which samples are trained on, and which are validated on: pure functions of labels, sizes and seeds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lightning.data.sources import Source
from distill_lightning.errors import InputError
from distill_lightning.seeds import rank_within_class, stratified_order


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures of one kind.

    Args:
        source: where they come from.
        taken: (n,) int64, which of its pictures, by position.
        labels: (N,) int64 of all pictures of the source; None where they have none.
    """

    source: Source
    taken: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.taken)


def hold_out(labels: Tensor, val_size: int | float, seed: int) -> tuple[Tensor, Tensor]:
    """Samples to validate on, and the others in stratified order. (h,) and (N - h,) int64.

    Args:
        labels: (N,).
        val_size: how many, or which fraction.
        seed: of the draw.

    Raises:
        InputError: nothing is left to train on.
    """
    count = len(labels)
    held_out = val_size if isinstance(val_size, int) else round(val_size * count)
    if held_out >= count:
        raise InputError(f"val_size {val_size} leaves no training samples of {count}: make it smaller")
    order = stratified_order(labels, seed)
    return order[:held_out].sort().values, order[held_out:]


def take_part(
    left: Tensor, part: int | float | str | None, labels: Tensor, class_names: Sequence[str], seed: int
) -> Tensor:
    """The training samples to use, of those that are left.

    Args:
        left: (n,) int64, in stratified order.
        part: a fraction, a number, "10 per class", or None for all.
        labels: (N,) of the whole training part.
        class_names: of the data set.
        seed: of the draw.

    Raises:
        InputError: there are not so many.
    """
    if part is None:
        return left
    if isinstance(part, str):
        match = re.fullmatch(r"(\d+) per class", part)
        if not match or not int(match[1]):
            raise InputError(f'train_part is "{part}": give a fraction, a number, or words like "10 per class"')
        rank = rank_within_class(labels[left], seed)
        short = [k for k in range(len(class_names)) if (labels[left] == k).sum() < int(match[1])]
        if short:
            raise InputError(f'train_part "{part}" asks for more than class {class_names[short[0]]} has: make it smaller')
        return left[rank < int(match[1])]
    count = round(part * len(left)) if isinstance(part, float) else part
    if not 0 < count <= len(left):
        raise InputError(f"train_part {part} is {count} samples: there are 1 to {len(left)} to choose from")
    return left[:count]


def without_classes(taken: Tensor, gone: Sequence[int], *labels: Tensor) -> Tensor:
    """The samples that none of the labels, (N,) each, puts into one of these classes."""
    classes = torch.tensor(gone)
    inside = torch.stack([torch.isin(of[taken], classes) for of in labels]).any(0)
    return taken[~inside]
