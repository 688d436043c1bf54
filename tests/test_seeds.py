"""Random draws are pure functions, and have the right distributions."""

import torch

from distill_lightning.orders import epoch_order
from distill_lightning.seeds import (
    hash_names,
    hash_numbers,
    hashed_by_numpy,
    hashed_by_torch,
    rank_within_class,
    seed_for,
    stratified_order,
    uniform,
)


def test_numbers_and_tensors_hash_alike():
    numbers = [hash_numbers(3, 5, i) for i in range(100)]
    for tensor in (hash_names(3, 5, torch.arange(100)), hashed_by_torch(hash_numbers(3, 5), [torch.arange(100)])):
        assert [x & (2**64 - 1) for x in tensor.tolist()] == numbers


def test_numpy_and_torch_hash_alike():
    """Of any shapes, on strided views, without axes, and from names that are large or negative."""
    ends = torch.tensor([-(2**63), -1, 0, 1, 2**63 - 1])
    shapes = [
        (ends[:, None], torch.arange(6)[::2]),
        (torch.tensor(0),),
        (torch.arange(12).reshape(3, 4).T,),
        (ends[:0],),
    ]
    for tensors in shapes:
        assert hashed_by_numpy(2**64 - 1, tensors).equal(hashed_by_torch(2**64 - 1, tensors))


def test_known_values():
    """The hash must never change: stored soft targets and interrupted runs rely on it."""
    assert hash_numbers(1, 2, 3) == 6537666347002887003
    assert epoch_order(8, seed=0, epoch=0).tolist() == [7, 5, 1, 2, 3, 4, 0, 6]


def test_uniform_is_uniform_and_independent():
    draws = torch.stack([uniform(1, 7, v, torch.arange(100_000)) for v in range(4)])
    assert (draws.mean(1) - 0.5).abs().max() < 0.005
    assert (draws.var(1) * 12 - 1).abs().max() < 0.01
    correlation = torch.corrcoef(draws)
    assert (correlation - torch.eye(4)).abs().max() < 0.015
    neighbours = torch.corrcoef(torch.stack([draws[0, 1:], draws[0, :-1]]))[0, 1]
    assert abs(neighbours) < 0.015
    assert draws.min() >= 0
    assert draws.max() < 1


def test_an_epoch_is_a_permutation_and_each_is_another():
    orders = [epoch_order(1000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert order.sort().values.equal(torch.arange(1000))
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_every_beginning_is_stratified():
    labels = torch.tensor([0] * 500 + [1] * 300 + [2] * 200)[torch.randperm(1000, generator=torch.Generator())]
    order = stratified_order(labels, seed=3)
    assert order.sort().values.equal(torch.arange(1000))
    for count in (10, 100, 700):
        share = labels[order[:count]].bincount(minlength=3) / count
        assert (share - torch.tensor([0.5, 0.3, 0.2])).abs().max() <= 1.5 / count


def test_rank_within_class_counts_each_class():
    labels = torch.tensor([2, 0, 2, 2, 0])
    rank = rank_within_class(labels, seed=1)
    assert sorted(rank[labels == 2].tolist()) == [0, 1, 2]
    assert sorted(rank[labels == 0].tolist()) == [0, 1]


def test_seeds_fit_a_generator():
    for name in range(200):
        torch.Generator().manual_seed(seed_for(3, name, 5))
