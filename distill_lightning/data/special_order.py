"""The order of an epoch for a specialist: half of each batch are samples of its classes, half are others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill_lightning.errors import InputError
from distill_lightning.orders import in_turns
from distill_lightning.seeds import SPECIAL, hash_names


def special_rows(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Which samples are of a specialist's classes, (n,) bool, from labels (n,)."""
    return torch.isin(labels, torch.tensor(classes, dtype=labels.dtype))


def special_count(labels: Tensor, classes: Sequence[int]) -> int:
    """The number of samples of a specialist's classes.

    Raises:
        InputError: there are none, or there are no others.
    """
    count = int(special_rows(labels, classes).sum())
    if not 0 < count < len(labels):
        raise InputError(
            f"{count} of {len(labels)} training samples are of the specialist's classes: it needs some, and some others"
        )
    return count


def special_order(
    labels: Tensor, classes: Sequence[int], seed: int, epoch: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """An order of an epoch in which half of the samples are special.

    An epoch shows each of the n_S special samples once, and n_S others. The others follow each other in random orders,
    also across epochs: each is shown once before one is shown again. Each batch has as many special samples as others,
    or one more or less if its size is odd, at random places.

    Args:
        labels: (n,) int64, the labels of the training samples.
        classes: the classes of the specialist.
        seed: the seed of the order.
        epoch: the number of the epoch.
        batch_size: the number of new samples in a global batch.

    Returns:
        Numbers of samples, (2 n_S,) int64, and how often each of them was shown before, (2 n_S,) int64. The result is a
        function of all arguments.
    """
    rows = special_rows(labels, classes)
    special, others = rows.nonzero().flatten(), (~rows).nonzero().flatten()
    count, key = len(special), int(hash_names(SPECIAL, seed, *classes, torch.tensor(0)))
    first = special[hash_names(SPECIAL, key, 0, epoch, torch.arange(count)).argsort(stable=True)]
    position = epoch * count + torch.arange(count)

    def order(one: int) -> Tensor:
        return hash_names(SPECIAL, key, 1, one, torch.arange(len(others))).argsort(stable=True)

    second, turn = in_turns(position, len(others), order)
    numbers = torch.stack([first, others[second]], dim=1).flatten()
    shown = torch.stack([torch.full_like(turn, epoch), turn], dim=1).flatten()
    batch = torch.arange(2 * count) // batch_size
    mixed = hash_names(SPECIAL, key, 2, epoch, torch.arange(2 * count)).argsort(stable=True)
    mixed = mixed[batch[mixed].argsort(stable=True)]  # at random within each batch
    return numbers[mixed], shown[mixed]
