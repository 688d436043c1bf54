"""The order of the samples in an epoch, as a pure function of its length, the seed and the epoch.

The order of a data set of less than `LARGE` samples is sorted by hashes and held in memory. That of a larger one is
computed place by place, and takes no memory: a Feistel network is a bijection that a key chooses among very many.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_lightning.seeds import KEYED, PERMUTATION, hash_names

LARGE = 1 << 22
"""The number of samples from which on an order is computed place by place. The order of fewer takes less than a second
and 150 MB to sort. Another number would change the order of data sets between the two, and so the results of runs."""
ROUNDS = 6
"""The number of rounds of the network, which is even, so that each digit ends in its own base. From 5 rounds of random
functions on, no test of far fewer places than the square root of all tells it from a random permutation (Patarin 2004,
https://doi.org/10.1007/978-3-540-28628-8_7). With 2 and with 4, places at a distance of one base are related."""


def keyed_places(places: Tensor, count: int, *key: int) -> Tensor:
    """What a permutation of 0 .. count - 1 has at some places.

    A place is a pair of digits (left, right), in bases near the square root of ``count``. A round makes it
    (right, left + hash(key, round, right)), modulo the base of left, which can be undone whatever the hash is. There
    are a few more pairs than places; a result of ``count`` or more goes through the network again until it is smaller
    (cycle walking; Black and Rogaway 2002, https://doi.org/10.1007/3-540-45760-7_9).

    Args:
        places: (n,) int64 on the CPU, from 0 to count - 1.
        count: the length of the permutation, 1 or more.
        key: chooses the permutation.

    Returns:
        (n,) int64. Memory and time grow with n alone.
    """
    first = math.isqrt(count - 1) + 1
    bases = np.uint64(first), np.uint64(-(-count // first))

    def through(values: Any) -> Any:
        left, right = np.divmod(values, bases[1])
        for number in range(ROUNDS):
            hashed = hash_names(*key, number, torch.from_numpy(right.view(np.int64))).numpy().view(np.uint64)
            left, right = right, (left + (hashed >> np.uint64(1))) % bases[number % 2]  # shifted: the sum must not wrap
        return left * bases[1] + right

    found = through(places.numpy().view(np.uint64))
    while len(outside := np.flatnonzero(found >= count)):
        found[outside] = through(found[outside])
    return torch.from_numpy(found.view(np.int64))


@dataclass(frozen=True, eq=False)
class KeyedOrder:
    """Samples in a random order that is computed where it is read. It can be read like a tensor, by a slice or by
    places.

    Args:
        count: n.
        key: chooses the order, see ``keyed_places``.
        samples: (n,), what is put in order; by default 0 .. count - 1.
    """

    count: int
    key: tuple[int, ...]
    samples: Tensor | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, places: slice | Tensor) -> Tensor:
        if isinstance(places, slice):
            places = torch.arange(*places.indices(self.count))
        found = keyed_places(places, self.count, *self.key)
        return found if self.samples is None else self.samples[found]


Order = Tensor | KeyedOrder
"""Samples in order, (n,) int64."""


def epoch_order(count: int, seed: int, epoch: int) -> Order:
    """The order of the samples in an epoch: a permutation of 0 .. count - 1, int64 (count,)."""
    if count < LARGE:
        return hash_names(PERMUTATION, seed, epoch, torch.arange(count)).argsort(stable=True)
    return KeyedOrder(count, (KEYED, seed, epoch))


def put_in_order(samples: Tensor, seed: int, epoch: int) -> Order:
    """Samples, (n,), in the order of an epoch."""
    order = epoch_order(len(samples), seed, epoch)
    return samples[order] if isinstance(order, Tensor) else replace(order, samples=samples)


def in_turns(position: Tensor, count: int, order: Callable[[int], Order]) -> tuple[Tensor, Tensor]:
    """Samples in orders that follow each other without a gap: each is taken once before one is taken again.

    Args:
        position: (n,) int64, the places in this endless row.
        count: the number of samples.
        order: the order of a turn, (count,) int64, as a function of its number.

    Returns:
        Numbers of samples, (n,) int64, and how often each was taken before, its turn, (n,) int64.
    """
    turn, place = position // count, position % count
    numbers = torch.empty_like(place)
    for one in turn.unique().tolist():
        here = turn == one
        numbers[here] = order(one)[place[here]]
    return numbers, turn
