"""The order of samples and every draw, as pure functions of names.

Nothing here has a state. A draw is a hash of what it is for: (seed, view, index, purpose) for an augmented picture,
(seed, epoch, index) for the order of an epoch. The same names give the same number on any device, in any process, in
any order of asking; so there is nothing to save, and nothing that a resumed run could get wrong.
"""

import itertools
import os
from typing import Any

import torch
from torch import Tensor

_LOW_64 = (1 << 64) - 1


_GOLDEN, _MULTIPLY_1, _MULTIPLY_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(x: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number."""
    x &= _LOW_64
    return x - (1 << 64) if x >> 63 else x


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # logical: int64's own shift copies the sign


def hash_numbers(*names: int) -> int:
    """Mixes integers into one of 64 bits, one after the other. The finaliser is SplitMix64's (Steele et al. 2014)."""
    state = 0
    for name in names:
        state = ((state + name) * _MULTIPLY_1 + _GOLDEN) & _LOW_64
        state = ((state ^ (state >> 30)) * _MULTIPLY_1) & _LOW_64
        state = ((state ^ (state >> 27)) * _MULTIPLY_2) & _LOW_64
        state ^= state >> 31
    return state


def hash_names(*names: int | Tensor) -> Tensor:
    """The same as ``hash_numbers``, for int64 tensors that broadcast. Numbers must come before tensors.

    Returns:
        int64, of the broadcast shape; all 64 bits are usable.
    """
    numbers = list(itertools.takewhile(lambda name: not isinstance(name, Tensor), names))
    state: Any = _signed(hash_numbers(*map(int, numbers)))  # a number until the first tensor comes
    for name in names[len(numbers) :]:
        state = (state + name) * _signed(_MULTIPLY_1) + _signed(_GOLDEN)  # int64 arithmetic wraps around
        state = (state ^ _shift_right(state, 30)) * _signed(_MULTIPLY_1)
        state = (state ^ _shift_right(state, 27)) * _signed(_MULTIPLY_2)
        state = state ^ _shift_right(state, 31)
    hashed: Tensor = state
    return hashed


def uniform(*names: int | Tensor) -> Tensor:
    """float32 in [0, 1), with 24 random bits, one for each tuple of names."""
    return ((hash_names(*names) >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def seed_for(*names: int) -> int:
    """A non-negative seed below 2^63 for a generator that is used for one thing only."""
    return hash_numbers(*names) >> 1


def run_seed() -> int:
    """The seed of the run: what ``seed_everything`` was called with, the same on every rank; 0 if it was not."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


# what a hash is for: two purposes never share their draws
PERMUTATION, SPLIT, STEP, AUGMENT, PAIR, NOISE, MIX, BUILD, PRUNE = range(1, 10)


def seed_of_order(seed: int, order: int) -> int:
    """The seed that one of several orders of the samples is drawn from; order 0 is that of ``seed`` itself."""
    return hash_numbers(PERMUTATION, seed, order) if order else seed


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: a permutation of 0 .. count - 1, int64 (count,)."""
    return hash_names(PERMUTATION, seed, epoch, torch.arange(count)).argsort(stable=True)


def rank_within_class(labels: Tensor, seed: int) -> Tensor:
    """How many of the same class come before each sample, in an order drawn from ``seed``. int64 (N,)."""
    shuffled = hash_names(SPLIT, seed, torch.arange(len(labels))).argsort(stable=True)
    grouped = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(labels)
    ranks[grouped] = torch.arange(len(labels)) - starts[labels[grouped]]
    return ranks


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """An order whose every beginning holds the classes in their proportions. A permutation, int64 (N,)."""
    place = (rank_within_class(labels, seed).double() + 0.5) / labels.bincount()[labels]
    tie = hash_names(SPLIT, seed, torch.arange(len(labels))).argsort(stable=True)
    return tie[place[tie].argsort(stable=True)]
