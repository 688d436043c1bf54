"""The split into training and validation samples, as pure functions of labels, sizes and seeds."""

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
    """A subset of the pictures of a source, with labels.

    Args:
        source: the source of the pictures.
        taken: (n,) int64, the positions of the pictures in the subset.
        labels: (N,) int64, the labels of all pictures of the source; None if they have none.
    """

    source: Source
    taken: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.taken)


def hold_out(labels: Tensor, val_size: int | float, seed: int) -> tuple[Tensor, Tensor]:
    """Holds out a validation split with the class proportions of all samples.

    Args:
        labels: (N,) int64.
        val_size: the size of the validation split: a number of samples (int) or a fraction (float).
        seed: the seed of the split.

    Returns:
        The positions of the h validation samples in ascending order, (h,) int64, and those of the other samples in
        stratified order, (N - h,) int64.

    Raises:
        InputError: no training samples are left.
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
    """Selects a part of the training samples.

    Args:
        left: (n,) int64, the positions of the training samples, in stratified order.
        part: a fraction (float), a number of samples (int), a number for each class ("10 per class"), or None for all.
        labels: (N,) int64, the labels of the whole training part.
        class_names: the names of the K classes.
        seed: the seed of the selection for each class.

    Returns:
        (m,) int64, the positions of the selected samples.

    Raises:
        InputError: ``part`` has another form, or there are not enough samples.
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
            raise InputError(
                f'train_part "{part}" asks for more than class {class_names[short[0]]} has: make it smaller'
            )
        return left[rank < int(match[1])]
    count = round(part * len(left)) if isinstance(part, float) else part
    if not 0 < count <= len(left):
        raise InputError(f"train_part {part} is {count} samples: there are 1 to {len(left)} to choose from")
    return left[:count]


def without_classes(taken: Tensor, gone: Sequence[int], *labels: Tensor) -> Tensor:
    """Removes samples of some classes.

    Args:
        taken: (n,) int64, the positions of the samples.
        gone: the numbers of the classes to remove.
        labels: one or more labels for each sample, (N,) int64 each. A sample is removed if any of its labels is in
            ``gone``.

    Returns:
        (m,) int64, the positions of the other samples.
    """
    classes = torch.tensor(gone)
    inside = torch.stack([torch.isin(each[taken], classes) for each in labels]).any(0)
    return taken[~inside]
