"""An augmented picture is a function of (seed, view, index)."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torchvision.transforms import InterpolationMode, autoaugment

from distill_lightning.data import pixels
from distill_lightning.data.augment import (
    ColorJitter,
    Cutout,
    Draws,
    GaussianNoise,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomScale,
    augment,
)
from distill_lightning.data.drop_patches import DropPatches
from distill_lightning.data.trivial_augment import OPERATIONS, TrivialAugment, apply
from distill_lightning.errors import InputError

IMAGES = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SMOOTH = F.interpolate(IMAGES.float(), size=(32, 32), mode="bilinear").round().to(torch.uint8)
INDEX = torch.arange(40)
ALL = {
    "crop": [RandomCrop(2)],
    "flip": [RandomFlip()],
    "rotation": [RandomRotation()],
    "scale": [RandomScale()],
    "color": [ColorJitter(hue=0.2)],
    "noise": [GaussianNoise()],
    "cutout": [Cutout(3)],
    "trivial": [TrivialAugment()],
    "drop": [DropPatches(0.3, size=3)],
}
ALL["several"] = [transform for one in ALL.values() for transform in one]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_company_does_not_matter(name, channels):
    images, view = IMAGES[:, :channels], torch.arange(40) % 3
    whole = augment(images, ALL[name], 5, view, INDEX)
    some = torch.tensor([17, 3, 30])
    assert whole.shape == images.shape and whole.dtype == torch.uint8
    assert augment(images[some], ALL[name], 5, view[some], INDEX[some]).equal(whole[some])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("changed", ["seed", "view", "index"])
def test_each_name_matters(changed, name):
    names = {"seed": 0, "view": torch.zeros(40, dtype=torch.long), "index": INDEX}
    first, before = augment(SMOOTH, ALL[name], **names), SMOOTH.clone()
    names[changed] = names[changed] + 1
    assert not augment(SMOOTH, ALL[name], **names).equal(first)
    assert SMOOTH.equal(before)


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


def near(ours: torch.Tensor, theirs: list[torch.Tensor], off: int = 1) -> bool:
    """Equal but for rounding."""
    return (ours.int() - torch.stack(theirs).int()).abs().max() <= off


def test_rotation_and_scale_as_torchvision():
    draws = Draws(0, torch.zeros(40, dtype=torch.long), INDEX)
    angles = draws.between(-30, 30)
    theirs = [TF.rotate(i, float(a), InterpolationMode.BILINEAR) for i, a in zip(SMOOTH, angles, strict=True)]
    assert near(RandomRotation(30)(SMOOTH, Draws(0, draws.view, INDEX)), theirs)
    scales = (-Draws(0, draws.view, INDEX).between(math.log(0.5), math.log(1.5))).exp()
    theirs = [
        TF.affine(i, 0, [0, 0], 1 / float(s), [0], InterpolationMode.BILINEAR)
        for i, s in zip(SMOOTH, scales, strict=True)
    ]
    assert near(RandomScale(0.5, 1.5)(SMOOTH, Draws(0, draws.view, INDEX)), theirs)


def test_a_wide_picture_turns_as_a_square_one():
    wide = torch.zeros(1, 1, 9, 15, dtype=torch.uint8)
    wide[0, 0, 4, 5:10] = 255  # a line of 5 pixels through the centre
    turned = pixels.affine(wide, pixels.rotation(torch.tensor([90.0])))
    assert turned[0, 0, 2:7, 7].eq(255).all() and turned.count_nonzero() == 5


THEIRS = {
    "shear_x": ("ShearX", 0.99), "shear_y": ("ShearY", 0.99), "translate_x": ("TranslateX", 32),
    "translate_y": ("TranslateY", 32), "rotate": ("Rotate", 135), "brightness": ("Brightness", 0.99),
    "saturation": ("Color", 0.99), "contrast": ("Contrast", 0.99), "sharpness": ("Sharpness", 0.99),
    "posterize": ("Posterize", None), "solarize": ("Solarize", None), "autocontrast": ("AutoContrast", None),
    "equalize": ("Equalize", None), "identity": ("Identity", None),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("level", [0, 1, 14, 22, 30])
@pytest.mark.parametrize("sign", [1, -1])
def test_trivial_augment_as_torchvision(name, level, sign):
    theirs, most = THEIRS[name]
    magnitude = (
        most * level / 30 * sign
        if most
        else {"Posterize": 8 - round(level / 5), "Solarize": 255 * (1 - level / 30)}.get(theirs, 0)
    )
    expected = [autoaugment._apply_op(i, theirs, magnitude, InterpolationMode.NEAREST, None) for i in SMOOTH]
    ours = apply(name, SMOOTH, torch.full((40,), level), torch.full((40,), sign))
    assert near(ours, expected, off=2)


def test_trivial_augment_does_each_operation_as_often():
    chosen = Draws(0, torch.zeros(14_000, dtype=torch.long), torch.arange(14_000)).integer(len(OPERATIONS))
    assert chosen.bincount().min() > 850 and chosen.bincount().max() < 1150


def test_colours_turn_about_grey():
    turn = torch.full((40,), 0.3)
    turned = pixels.hue(SMOOTH, turn)
    red = torch.tensor([200, 60, 60], dtype=torch.uint8).view(1, 3, 1, 1)
    assert pixels.hue(red, torch.tensor([1 / 3])).flatten().argmax() == 1  # towards green, as torchvision's
    assert pixels.hue(SMOOTH, torch.ones(40)).equal(SMOOTH)  # once around
    inside = ((turned > 0) & (turned < 255)).all(1, keepdim=True)  # luma stays, where nothing is cut off
    assert (pixels.grey(turned) - pixels.grey(SMOOTH))[inside].abs().max() < 2
    assert not turned.equal(SMOOTH)
    assert pixels.hue(SMOOTH[:, :1], turn).equal(SMOOTH[:, :1])


def test_color_jitter_stays_within_its_factors():
    grey = torch.full((1000, 3, 4, 4), 100, dtype=torch.uint8)
    many = torch.arange(1000)
    values = ColorJitter(brightness=0.2, contrast=0, saturation=0)(grey, Draws(0, torch.zeros_like(many), many))
    assert values.min() in (80, 81) and values.max() in (119, 120)


def test_noise_has_its_standard_deviation():
    many = torch.arange(500)
    images = torch.full((500, 1, 9, 9), 128, dtype=torch.uint8)
    noisy = GaussianNoise(0.05)(images, Draws(0, torch.zeros_like(many), many)).float()
    assert noisy.mean() == pytest.approx(128, abs=0.3)
    assert noisy.std() == pytest.approx(12.75, rel=0.02)
    flat = noisy.flatten(1)[:, :80]  # no pixel follows another
    assert torch.corrcoef(flat.T).fill_diagonal_(0).abs().max() < 0.25


def test_cutout_blanks_a_square_with_the_mean():
    many = torch.arange(4000)
    images = torch.zeros(4000, 1, 8, 8, dtype=torch.uint8)
    images[:, :, ::2] = 200
    cut = Cutout(4)(images, Draws(0, torch.zeros_like(many), many))
    blank = cut == 100
    assert cut[~blank].equal(images[~blank])
    sizes = blank.flatten(1).sum(1)
    assert sizes.max() == 16 and sizes.min() == 4  # a quarter of it at a corner
    assert blank.float().mean(0)[0, 4, 4] == pytest.approx(16 / 64, abs=0.03)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomCrop(0),
        lambda: RandomFlip(1.5),
        lambda: RandomRotation(0),
        lambda: RandomScale(2, 1),
        lambda: ColorJitter(brightness=2),
        lambda: ColorJitter(hue=1),
        lambda: GaussianNoise(0),
        lambda: Cutout(0),
    ],
)
def test_bad_options(make):
    with pytest.raises(InputError):
        make()
