"""An augmented picture is a function of (seed, view, index)."""

import pytest
import torch

from distill_lightning.data.augment import Draws, RandomCrop, RandomFlip, augment
from distill_lightning.errors import InputError

IMAGES = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(40)
BOTH = [RandomCrop(2), RandomFlip()]


def test_company_does_not_matter():
    view = torch.arange(40) % 3
    whole = augment(IMAGES, BOTH, 5, view, INDEX)
    some = torch.tensor([17, 3, 30])
    assert augment(IMAGES[some], BOTH, 5, view[some], INDEX[some]).equal(whole[some])


@pytest.mark.parametrize("changed", ["seed", "view", "index"])
def test_each_name_matters(changed):
    names = {"seed": 0, "view": torch.zeros(40, dtype=torch.long), "index": INDEX}
    first = augment(IMAGES, BOTH, **names)
    names[changed] = names[changed] + 1
    assert not augment(IMAGES, BOTH, **names).equal(first)


def test_crop_is_a_shift_with_zeros():
    transform = RandomCrop(2)
    view = torch.zeros(40, dtype=torch.long)
    got = transform(IMAGES, Draws(1, view, INDEX))
    draws = Draws(1, view, INDEX)
    down, across = draws.integer(5), draws.integer(5)
    assert len(set(zip(down.tolist(), across.tolist(), strict=True))) > 10
    for i in range(40):
        padded = torch.zeros(3, 12, 12, dtype=torch.uint8)
        padded[:, 2:10, 2:10] = IMAGES[i]
        assert got[i].equal(padded[:, down[i] : down[i] + 8, across[i] : across[i] + 8])


def test_flip_mirrors_about_half():
    many = torch.arange(2000)
    images = torch.arange(8, dtype=torch.uint8).expand(2000, 1, 1, 8)
    flipped = RandomFlip()(images, Draws(0, torch.zeros_like(many), many))[:, 0, 0, 0] == 7
    assert 0.45 < flipped.float().mean() < 0.55


@pytest.mark.parametrize("make", [lambda: RandomCrop(0), lambda: RandomFlip(1.5)])
def test_bad_options(make):
    with pytest.raises(InputError):
        make()
