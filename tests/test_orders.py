"""Orders that are computed place by place: bijections that cannot be told from random permutations, where weaker ones
can."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy import stats

from distill_lightning import orders
from distill_lightning.orders import LARGE, KeyedOrder, epoch_order, in_turns, keyed_places, put_in_order
from distill_lightning.seeds import KEYED

COUNT = 100_003
"""No product of two near numbers, so that some places go through the network twice."""
SURE = 1e-6
"""What no p-value of a random order is below: 300 of them are computed here, of fixed seeds."""


def keyed(seed: int, epoch: int = 0, count: int = COUNT) -> np.ndarray:
    return keyed_places(torch.arange(count), count, KEYED, seed, epoch).numpy()


def by_numpy(seed: int, epoch: int = 0, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


# What can be told of an order


def chi_square(counts: np.ndarray, freedom: int) -> float:
    """The p-value of counts whose expectations are equal; both tails, since too even counts are not random either."""
    expected = counts.mean()
    return two_sided(stats.chi2(freedom), ((counts - expected) ** 2 / expected).sum())


def two_sided(distribution, value: float) -> float:
    return 2 * min(distribution.cdf(value), distribution.sf(value))


def in_bins(order: np.ndarray) -> float:
    """Whether each stretch of places has indices of everywhere."""
    counts = np.histogram2d(np.arange(len(order)), order, bins=32)[0]
    return chi_square(counts, 31 * 31)


def serial(order: np.ndarray, lag: int) -> float:
    """The correlation of the indices at two places."""
    return 2 * stats.norm.sf(abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) * len(order) ** 0.5)


def turning_points(order: np.ndarray) -> float:
    """The number of runs up and down, by which short and long runs are told."""
    up, n = np.diff(order) > 0, len(order)
    return two_sided(stats.norm(2 * (n - 2) / 3, ((16 * n - 29) / 90) ** 0.5), (up[1:] != up[:-1]).sum())


def steps(order: np.ndarray, lag: int, count: int | None = None) -> float:
    """The differences of the indices at two places, modulo the number of samples."""
    count = count or len(order)
    moved = (order[lag:] - order[:-lag]) % count
    return chi_square(np.histogram(moved, bins=64, range=(0, count))[0], 63)


def against(order: np.ndarray, other: np.ndarray) -> float:
    """The differences of two orders at the same places."""
    return chi_square(np.histogram((order - other) % len(order), bins=64, range=(0, len(order)))[0], 63)


def all_of(draw, seed: int) -> dict[str, float]:
    order = draw(seed)
    rows = {f"lag {lag}": (serial(order, lag), steps(order, lag)) for lag in (1, 2, 64, 316, 317)}
    return {
        "bins": in_bins(order),
        "turns": turning_points(order),
        "epochs": against(order, draw(seed, 1)),
        "seeds": against(order, draw(seed + 1000)),
        **{f"correlation, {name}": found[0] for name, found in rows.items()},
        **{f"steps, {name}": found[1] for name, found in rows.items()},
    }


def agreements(draw) -> float:
    """Two random permutations have the same sample at k places with the probability of a Poisson number of mean 1."""
    rows = [draw(3, epoch, 1009) for epoch in range(600)]
    counts = np.bincount([min(int((a == b).sum()), 4) for a, b in zip(rows[::2], rows[1::2], strict=True)], minlength=5)
    expected = stats.poisson(1).pmf(range(4))
    return stats.chisquare(counts, 300 * np.append(expected, 1 - expected.sum())).pvalue


# Random orders, and weaker ones


@pytest.mark.parametrize("draw", [keyed, by_numpy])
def test_it_cannot_be_told_from_a_random_permutation(draw):
    found = [value for seed in range(10) for value in all_of(draw, seed).values()]
    assert min(found) > SURE
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert agreements(draw) > 1e-3


@pytest.mark.parametrize(("rounds", "by"), [(2, "bins"), (4, "steps, lag 316")])
def test_fewer_rounds_are_told(monkeypatch, rounds, by):
    monkeypatch.setattr(orders, "ROUNDS", rounds)
    assert all_of(keyed, 0)[by] < SURE**2


def test_a_hash_that_is_a_line_is_told(monkeypatch):
    monkeypatch.setattr(orders, "hash_names", lambda *names: names[-1] * 0x9E3779B1 + sum(names[:-1]) * 12345)
    found = all_of(keyed, 0)
    assert max(found[name] for name in ("bins", "turns", "epochs", "seeds", "steps, lag 1")) < SURE**2
    assert agreements(keyed) < SURE**2


def test_a_stretch_of_a_billion_is_spread_evenly():
    order, count = KeyedOrder(10**9, (KEYED, 0, 0)), 10**9
    for start in (0, 123_456_789, count - COUNT):
        found = order[start : start + COUNT].numpy()
        assert chi_square(np.histogram(found, bins=1024, range=(0, count))[0], 1023) > SURE
        assert min(serial(found, 1), turning_points(found), steps(found, 1, count), steps(found, 31_623, count)) > SURE


def test_each_sample_comes_first_equally_often():
    first = np.array([keyed_places(torch.arange(2), 37, KEYED, seed, 0).tolist() for seed in range(8000)])
    assert min(chi_square(np.bincount(column, minlength=37), 36) for column in first.T) > SURE
    assert chi_square(np.bincount((first[:, 1] - first[:, 0]) % 37, minlength=37)[1:], 35) > SURE


# Bijections


def test_each_sample_is_there_once():
    near = [root * root + more for root in (31, 32, 256) for more in (-1, 0, 1)]
    for count in [*range(1, 130), *near, 2 * 10_007, COUNT]:
        assert keyed_places(torch.arange(count), count, 5, count).sort().values.equal(torch.arange(count))


def test_it_is_read_anywhere_in_any_order():
    order = KeyedOrder(COUNT, (KEYED, 3, 4))
    whole = order[:]
    places = torch.tensor([COUNT - 1, 5, 5, 0])
    assert order[places].equal(whole[places])
    assert order[17:100_000:64].equal(whole[17:100_000:64])
    assert len(order[7:7]) == 0
    assert put_in_order(torch.arange(1000) * 3, 0, 0)[:].sort().values.equal(torch.arange(1000) * 3)


def test_known_places():
    """They must never change: interrupted runs rely on them."""
    assert epoch_order(10**9, seed=0, epoch=0)[:4].tolist() == [705110569, 251142998, 861280706, 620594744]


def test_a_long_order_takes_no_memory():
    tracemalloc.start()
    order = epoch_order(10**12, seed=1, epoch=2)
    for start in range(0, 10**12, 10**11):
        order[start : start + 1024]
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_orders_of_fewer_samples_are_what_they_were():
    assert isinstance(epoch_order(LARGE - 1, 0, 0), torch.Tensor)
    assert isinstance(epoch_order(LARGE, 0, 0), KeyedOrder)


def test_turns_of_a_long_order_follow_each_other(monkeypatch):
    monkeypatch.setattr(orders, "LARGE", 8)
    numbers, turns = in_turns(torch.arange(25), 10, lambda turn: epoch_order(10, 0, turn))
    for turn, count in ((0, 10), (1, 10), (2, 5)):
        assert len(numbers[turns == turn].unique()) == count == (turns == turn).sum()
