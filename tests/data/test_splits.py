"""Which samples are trained on, and which are validated on."""

import pytest
import torch

from distill_lightning.data.sources import MemorySource
from distill_lightning.data.splits import Split, hold_out, take_part, without_classes
from distill_lightning.errors import InputError

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
NAMES = ["a", "b", "c"]


@pytest.mark.parametrize(("val_size", "count"), [(0, 0), (0.0, 0), (10, 10), (0.25, 25), (99, 99)])
def test_what_is_held_out_and_what_is_left_are_all(val_size, count):
    held_out, left = hold_out(LABELS, val_size, seed=1)
    assert len(held_out) == count and held_out.equal(held_out.sort().values)
    assert torch.cat([held_out, left]).sort().values.equal(torch.arange(100))
    share = LABELS[held_out].bincount(minlength=3)
    assert (share - count * torch.tensor([0.5, 0.3, 0.2])).abs().max() <= 1.5  # classes keep their proportions
    again, _ = hold_out(LABELS, val_size, seed=1)
    assert again.equal(held_out)


def test_a_split_has_its_seed():
    assert not hold_out(LABELS, 10, seed=1)[0].equal(hold_out(LABELS, 10, seed=2)[0])


@pytest.mark.parametrize("val_size", [100, 0.999])
def test_something_must_be_left(val_size):
    with pytest.raises(InputError, match="leaves no training samples of 100"):
        hold_out(LABELS, val_size, seed=0)


def part(of: int | float | str | None) -> torch.Tensor:
    _, left = hold_out(LABELS, 0, seed=1)
    return take_part(left, of, LABELS, NAMES, seed=1)


def test_parts():
    assert len(part(None)) == len(part(1.0)) == len(part(100)) == 100
    assert len(part(0.25)) == len(part(25)) == 25
    assert part(25).equal(part(100)[:25])  # a larger part has the smaller one in it
    assert LABELS[part(10)].bincount().tolist() == [5, 3, 2]
    assert LABELS[part("7 per class")].bincount().tolist() == [7, 7, 7]
    assert torch.isin(part("7 per class"), part("9 per class")).all()


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (0, "there are 1 to 100"),
        (101, "train_part 101 is 101 samples: there are 1 to 100"),
        (1.5, "train_part 1.5 is 150 samples"),
        (-1, "there are 1 to 100"),
        ("0 per class", 'train_part is "0 per class"'),
        ("some", "give a fraction, a number, or words"),
        ("21 per class", "asks for more than class c has"),
    ],
)
def test_parts_that_there_are_not(of, message):
    with pytest.raises(InputError, match=message):
        part(of)


def test_classes_that_are_left_out_by_any_of_their_labels():
    noisy = LABELS.clone()
    noisy[0], noisy[60] = 2, 0
    taken = torch.arange(0, 100, 2)
    left = without_classes(taken, [2], LABELS, noisy)
    assert left.tolist() == list(range(2, 80, 2))
    assert without_classes(taken, [], LABELS).equal(taken)


def test_a_split_is_as_long_as_what_is_taken():
    source = MemorySource(torch.zeros(100, 1, 2, 2, dtype=torch.uint8))
    assert len(Split(source, torch.arange(7))) == 7
