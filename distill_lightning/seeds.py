"""The order of samples and all random draws, as pure functions of integers.

There is no generator with a state. A random number is a hash of the integers that identify it, its names: for example
(purpose, seed, view, index) for an augmented picture, (purpose, seed, epoch, index) for the order of an epoch. The same
names give the same number on any device, in any process and in any order of the calls. So there is no state to save,
and a resumed run draws the same numbers.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LOW_64 = (1 << 64) - 1
_CONSTANTS = _GOLDEN, _MULTIPLY_1, _MULTIPLY_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def hash_numbers(*names: int) -> int:
    """Hashes integers to one integer in [0, 2^64), with the finaliser of SplitMix64 (Steele et al. 2014) for each."""
    state = 0
    for name in names:
        state = ((state + name) * _MULTIPLY_1 + _GOLDEN) & _LOW_64
        state = ((state ^ (state >> 30)) * _MULTIPLY_1) & _LOW_64
        state = ((state ^ (state >> 27)) * _MULTIPLY_2) & _LOW_64
        state ^= state >> 31
    return state


def hash_names(*names: int | Tensor) -> Tensor:
    """``hash_numbers`` for int64 tensors, which are broadcast. Numbers must come before tensors.

    Returns:
        int64 of the broadcast shape. All 64 bits are random.
    """
    numbers = list(itertools.takewhile(lambda name: not isinstance(name, Tensor), names))
    tensors: Any = names[len(numbers) :]
    # for the few numbers of a batch, NumPy takes a third of the time of torch
    hashed = hashed_by_numpy if tensors[0].device.type == "cpu" else hashed_by_torch
    return hashed(hash_numbers(*map(int, numbers)), tensors)


def hashed_by_numpy(state: int, tensors: Sequence[Tensor]) -> Tensor:
    """Mixes tensors on the CPU, int64, into the hash ``state`` of the names before them."""
    arrays = [tensor.numpy().view(np.uint64) for tensor in tensors]
    with np.errstate(over="ignore"):  # numbers wrap around; of an array without axes, NumPy would warn of it
        hashed = _mixed(np.uint64(state), arrays, [*map(np.uint64, _CONSTANTS)], lambda x, bits: x >> np.uint64(bits))
    return torch.from_numpy(np.asarray(hashed).view(np.int64))


def hashed_by_torch(state: int, tensors: Sequence[Tensor]) -> Tensor:
    """The same on any device. Torch has no unsigned arithmetic; that of int64 has the same bits."""
    hashed: Tensor = _mixed(_signed(state), tensors, [*map(_signed, _CONSTANTS)], _shift_right)
    return hashed


def _mixed(state: Any, names: Iterable[Any], constants: Sequence[Any], shift_right: Callable[[Any, int], Any]) -> Any:
    golden, multiply_1, multiply_2 = constants
    for name in names:
        state = (state + name) * multiply_1 + golden
        state = (state ^ shift_right(state, 30)) * multiply_1
        state = (state ^ shift_right(state, 27)) * multiply_2
        state = state ^ shift_right(state, 31)
    return state


def _signed(x: int) -> int:
    """The int64 that has the same bits as the unsigned 64-bit number ``x``."""
    x &= _LOW_64
    return x - (1 << 64) if x >> 63 else x


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # a logical shift: >> on int64 copies the sign bit


def uniform(*names: int | Tensor) -> Tensor:
    """One float32 in [0, 1), with 24 random bits, for each tuple of names; broadcast as in ``hash_names``."""
    return ((hash_names(*names) >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def seed_for(*names: int) -> int:
    """A seed in [0, 2^63) for a generator that is used for one purpose only."""
    return hash_numbers(*names) >> 1


def run_seed() -> int:
    """The seed that ``seed_everything`` was called with, the same on every rank; 0 if it was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


# the purposes of random draws; each purpose is the first name of its hashes, so that two purposes never share numbers
PERMUTATION, SPLIT, STEP, AUGMENT, PAIR, NOISE, MIX, BUILD, PRUNE, BALANCE, UNLABELLED, PATCHES = range(1, 13)
MADE, CONTRAST, SPECIAL, CLUSTER, KEYED = range(13, 18)


def seed_of_order(seed: int, order: int) -> int:
    """The seed for sample order number ``order``, if there are several. Order 0 uses ``seed`` itself."""
    return hash_numbers(PERMUTATION, seed, order) if order else seed


def rank_within_class(labels: Tensor, seed: int) -> Tensor:
    """The rank of each sample among the samples of its class, from 0, in an order drawn from ``seed``.

    Args:
        labels: (N,) int64.
        seed: the seed of the order.

    Returns:
        int64 (N,).
    """
    shuffled = hash_names(SPLIT, seed, torch.arange(len(labels))).argsort(stable=True)
    grouped = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(labels)
    ranks[grouped] = torch.arange(len(labels)) - starts[labels[grouped]]
    return ranks


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """A random order in which the first n samples, for every n, have about the class proportions of all samples.

    Args:
        labels: (N,) int64.
        seed: the seed of the order.

    Returns:
        A permutation of 0 .. N - 1, int64 (N,).
    """
    place = (rank_within_class(labels, seed).double() + 0.5) / labels.bincount()[labels]
    tie = hash_names(SPLIT, seed, torch.arange(len(labels))).argsort(stable=True)
    return tie[place[tie].argsort(stable=True)]
