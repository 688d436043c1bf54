"""Batches of which half are samples of a specialist's classes."""

import pytest
import torch
from helpers import train_loader

from distill_lightning.data.digits import Digits
from distill_lightning.data.special_order import special_order
from distill_lightning.errors import InputError
from distill_lightning.values import BatchNeeds

LABELS = torch.arange(103) % 10
CLASSES = (2, 7)
NEEDS = BatchNeeds(special_classes=CLASSES)


def is_special(numbers: torch.Tensor) -> torch.Tensor:
    return torch.isin(LABELS[numbers], torch.tensor(CLASSES))


@pytest.mark.parametrize("size", [8, 7])
def test_half_of_each_batch_is_special(size):
    numbers, _ = special_order(LABELS, CLASSES, seed=5, epoch=0, batch_size=size)
    count = int(is_special(torch.arange(103)).sum())
    assert len(numbers) == 2 * count
    halves = [int(is_special(batch).sum()) for batch in numbers.split(size)]
    assert all(abs(2 * half - len(batch)) <= 1 for half, batch in zip(halves, numbers.split(size), strict=True))
    first = torch.stack([is_special(batch) for batch in numbers.split(size)[:-1]])
    assert len(first.unique(dim=0)) > 1  # not always at the same places of a batch


def test_each_other_sample_is_shown_once_before_one_is_shown_again():
    counts, views = torch.zeros(103, dtype=torch.int64), set()
    others = ~is_special(torch.arange(103))
    for epoch in range(9):
        numbers, shown = special_order(LABELS, CLASSES, 5, epoch, 8)
        assert bool((counts[numbers[is_special(numbers)]] == epoch).all())
        counts += numbers.bincount(minlength=103)
        assert counts[others].max() - counts[others].min() <= 1
        views |= set(zip(numbers.tolist(), shown.tolist(), strict=True))
    assert len(views) == int(counts.sum())  # a sample that is shown again is shown in another view


def test_it_is_a_function_of_its_arguments():
    first, _ = special_order(LABELS, CLASSES, 5, 3, 8)
    assert torch.equal(first, special_order(LABELS, CLASSES, 5, 3, 8)[0])
    for other in ((CLASSES, 6, 3), (CLASSES, 5, 4)):
        assert not torch.equal(first, special_order(LABELS, *other, 8)[0])
    rest = [special_order(LABELS, classes, 5, 3, 8)[0] for classes in (CLASSES, (2, 8))]
    assert not torch.equal(*(numbers[torch.isin(LABELS[numbers], torch.tensor([2]))] for numbers in rest))


def test_the_batches_of_a_fit():
    data = Digits(batch_size=30, seed=1, train_part=500)
    data.setup("fit")
    whole = list(train_loader(data, needs=NEEDS))
    assert len(whole) == 2 * int(torch.isin(data.samples.labels, torch.tensor(CLASSES)).sum()) // 30
    assert [int(torch.isin(batch.labels, torch.tensor(CLASSES)).sum()) for batch in whole] == [15] * len(whole)
    # two processes share the same batches, and a run that goes on sees the rest
    for rank in range(2):
        for batch, share in zip(whole, train_loader(data, rank, 2, needs=NEEDS), strict=True):
            assert torch.equal(batch.index[rank::2], share.index)
            assert torch.equal(batch.images[rank::2], share.images)
    rest = list(train_loader(data, start=(0, 2), needs=NEEDS))
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole[2:], rest, strict=True))


@pytest.mark.parametrize(
    ("options", "classes", "words"),
    [
        ({"balanced": True}, CLASSES, "leave out data.balanced and data.class_weights"),
        ({"class_weights": "inverse"}, CLASSES, "leave out data.balanced and data.class_weights"),
        ({"leave_out": [2, 7]}, CLASSES, "0 of .* training samples are of the specialist's classes"),
        ({}, tuple(range(10)), "it needs some, and some others"),
        ({"batch_size": 600}, CLASSES, "batch_size 600 is larger than the specialist's epoch of"),
    ],
)
def test_what_does_not_go_together(options, classes, words):
    data = Digits(train_part=500, **options)
    data.setup("fit")
    with pytest.raises(InputError, match=words):
        train_loader(data, needs=BatchNeeds(special_classes=classes))
