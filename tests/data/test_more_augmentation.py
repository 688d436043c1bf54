"""The augmentations of the field: each equals torchvision's for the same drawn parameters, and depends on seed, view
and index alone."""

import inspect
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from helpers import train_loader
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment, transforms

import distill_lightning as dl
from distill_lightning.data.augment import ColorJitter, Draws, Transform, augment
from distill_lightning.data.auto_augment import (
    OF_AUGMIX,
    OF_POLICIES,
    OPERATIONS,
    POLICIES,
    AugMix,
    AutoAugment,
    RandAugment,
)
from distill_lightning.data.digits import Digits
from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.random_crops import (
    RandomErasing,
    RandomResizedCrop,
    ResizeAndCenterCrop,
    crop_boxes,
    resize_boxes,
)
from distill_lightning.data.three_augment import ThreeAugment, gaussian_blur
from distill_lightning.errors import InputError

IMAGES = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SMOOTH = F.interpolate(IMAGES.float(), size=(32, 32), mode="bilinear").round().to(torch.uint8)
INDEX = torch.arange(40)
VIEW = torch.arange(40) % 3
ALL = {
    "crop": [RandomResizedCrop()], "rand": [RandAugment()], "auto": [AutoAugment("svhn")], "augmix": [AugMix()],
    "erasing": [RandomErasing(1.0)], "three": [ThreeAugment()],
}  # fmt: skip
ALL["several"] = [transform for one in ALL.values() for transform in one]
NAMES = {
    "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY",
    "rotate": "Rotate", "brightness": "Brightness", "saturation": "Color", "contrast": "Contrast",
    "sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize", "autocontrast": "AutoContrast",
    "equalize": "Equalize", "identity": "Identity", "invert": "Invert",
}  # fmt: skip


def draws() -> Draws:
    return Draws(3, VIEW, INDEX)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_company_does_not_matter(name, channels):
    images = SMOOTH[:, :channels]
    whole = augment(images, ALL[name], 5, VIEW, INDEX)
    some = torch.tensor([17, 3, 30])
    assert whole.shape == images.shape and whole.dtype == torch.uint8
    assert augment(images[some], ALL[name], 5, VIEW[some], INDEX[some]).equal(whole[some])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("changed", ["seed", "view", "index"])
def test_each_name_matters(changed, name):
    names = {"seed": 0, "view": torch.zeros(40, dtype=torch.long), "index": INDEX}
    first, before = augment(SMOOTH, ALL[name], **names), SMOOTH.clone()
    names[changed] = names[changed] + 1
    assert not augment(SMOOTH, ALL[name], **names).equal(first)
    assert SMOOTH.equal(before)


def off(ours: torch.Tensor, theirs: torch.Tensor) -> int:
    return int((ours.int() - theirs.int()).abs().max())


def step(image: torch.Tensor, name: str, magnitude: float, mode: InterpolationMode) -> torch.Tensor:
    return autoaugment._apply_op(image, NAMES[name], magnitude, mode, None)


def magnitude_of(space: dict, name: str, level: int, sign: int) -> float:
    values, signed = space[NAMES[name]]
    value = float(values[level]) if values.ndim else 0.0
    return value * sign if signed else value


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_rand_augment_as_torchvision(magnitude):
    """Within 2 levels of 255 for each operation, as TrivialAugment."""
    ours, drawn = RandAugment(1, magnitude)(SMOOTH, draws()), draws()
    chosen, sign = drawn.integer(len(OPERATIONS)), 1 - 2 * drawn.integer(2)
    space = autoaugment.RandAugment()._augmentation_space(31, (32, 32))
    seen = set()
    for image, result, number, s in zip(SMOOTH, ours, chosen.tolist(), sign.tolist(), strict=True):
        name = OPERATIONS[number]
        expected = step(image, name, magnitude_of(space, name, magnitude, s), InterpolationMode.NEAREST)
        assert off(result, expected) <= 2, name
        seen.add(name)
    assert len(seen) > 9


def test_rand_augment_chains_operations():
    twice, drawn = RandAugment(2, 9)(SMOOTH, draws()), draws()
    assert twice.equal(RandAugment(1, 9)(RandAugment(1, 9)(SMOOTH, drawn), drawn))


@pytest.mark.parametrize("policy", POLICIES)
def test_auto_augment_as_torchvision(policy):
    theirs = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy(policy))
    made, ours = AutoAugment(policy), []
    for (first, p, a), (second, q, b) in made.policies:
        ours.append(tuple((NAMES[OF_POLICIES[k]], x, round(9 * s)) for k, x, s in ((first, p, a), (second, q, b))))
    assert ours == [tuple((name, p, level or 0) for name, p, level in pair) for pair in theirs.policies]
    results, drawn = made(SMOOTH, draws()), draws()
    chosen = drawn.integer(25)
    rolls = [(drawn.uniform(), 1 - 2 * drawn.integer(2)) for _ in range(2)]
    space = theirs._augmentation_space(10, (32, 32))
    for row in range(40):
        image = SMOOTH[row]
        for (name, p, level), (roll, sign) in zip(theirs.policies[int(chosen[row])], rolls, strict=True):
            if roll[row] < p:
                values, signed = space[name]
                value = float(values[level]) if level is not None else 0.0
                image = autoaugment._apply_op(
                    image, name, value * int(sign[row]) if signed else value, InterpolationMode.NEAREST, None
                )
        different = (results[row].int() - image.int()).abs()
        # the second operation may widen a difference of one level: a threshold, or a stretch of few values
        assert (different > 2).float().mean() < 0.02, theirs.policies[int(chosen[row])]


def test_augmix_as_torchvision():
    """Equal but for rounding to the mixture of the same chains, which torchvision's operations make."""
    ours, drawn = AugMix(severity=3, width=3)(SMOOTH, draws()), draws()
    own = drawn.uniform()
    weights = torch.stack([-torch.log1p(-drawn.uniform()) for _ in range(3)], 1)
    weights = (1 - own)[:, None] * weights / weights.sum(1, keepdim=True)
    space = autoaugment.AugMix()._augmentation_space(10, (32, 32))
    expected = own[:, None, None, None] * SMOOTH
    for chain in range(3):
        length = drawn.integer(3) + 1
        images = [*SMOOTH]
        for number in range(3):
            chosen, level = drawn.integer(len(OF_AUGMIX)), drawn.integer(3)
            sign = 1 - 2 * drawn.integer(2)
            for row in range(40):
                if number < length[row]:
                    name = OF_AUGMIX[int(chosen[row])]
                    value = magnitude_of(space, name, int(level[row]), int(sign[row]))
                    images[row] = step(images[row], name, value, InterpolationMode.BILINEAR)
        expected = expected + weights[:, chain, None, None, None] * torch.stack(images)
    different = (ours.int() - expected.to(torch.uint8).int()).abs()
    assert (different > 2).float().mean() < 0.01
    assert own.min() < 0.1 and own.max() > 0.9


def test_random_resized_crop_as_torchvision():
    """Within 1 level of ``resized_crop`` on the same box."""
    transform = RandomResizedCrop()
    numbers = transform.numbers(draws())
    boxes = crop_boxes(32, 32, numbers, transform.scale, transform.ratio)
    ours = transform(SMOOTH, draws())
    for image, result, (x, y, w, h) in zip(SMOOTH, ours, boxes.tolist(), strict=True):
        assert off(result, TF.resized_crop(image, y, x, h, w, [32, 32], antialias=True)) <= 1
    smaller = resize_boxes(SMOOTH, boxes, 7)
    for image, result, (x, y, w, h) in zip(SMOOTH, smaller, boxes.tolist(), strict=True):
        assert off(result, TF.resized_crop(image, y, x, h, w, [7, 7], antialias=True)) <= 1


@pytest.mark.parametrize(("width", "height"), [(32, 32), (500, 375), (40, 400), (4, 3)])
def test_boxes_are_those_of_torchvision(width, height, monkeypatch):
    """The same numbers give the box of ``get_params``, the one in the middle if none fits included."""
    transform = RandomResizedCrop((0.08, 1.0), (3 / 4, 4 / 3))
    many = torch.arange(60)
    numbers = transform.numbers(Draws(0, torch.zeros_like(many), many)).double()
    boxes = crop_boxes(width, height, numbers, transform.scale, transform.ratio)
    choices = transform.choices(Draws(0, torch.zeros_like(many), many))
    for row, box in zip(numbers, boxes.tolist(), strict=True):
        rolls = itertools.chain.from_iterable(zip(row[:10].tolist(), row[10:20].tolist(), strict=True))
        places = [row[20], row[21]]
        monkeypatch.setattr(
            torch.Tensor,
            "uniform_",
            lambda t, low, high, rolls=rolls: t.double().fill_(low + (high - low) * next(rolls)),
        )
        monkeypatch.setattr(
            torch, "randint", lambda low, high, size, places=places: (high * places.pop()).long().view(size)
        )
        i, j, h, w = transforms.RandomResizedCrop.get_params(
            torch.zeros(1, height, width), list(transform.scale), list(transform.ratio)
        )
        monkeypatch.undo()
        assert box == [j, i, w, h]
    assert [list(choice(width, height)) for choice in choices] == boxes.tolist()
    assert (boxes[:, 0] + boxes[:, 2] <= width).all() and (boxes[:, 1] + boxes[:, 3] <= height).all()


def test_random_erasing_as_torchvision():
    transform = RandomErasing(0.5)
    ours = transform(SMOOTH, draws())
    boxes = transform.boxes(32, 32, draws())
    for image, result, (x, y, w, h) in zip(SMOOTH, ours, boxes.tolist(), strict=True):
        mean = image.float().mean((1, 2), keepdim=True).round().to(torch.uint8)
        assert result.equal(TF.erase(image, y, x, h, w, mean) if h else image)
    many = torch.arange(4000)
    drawn = transform.boxes(32, 32, Draws(0, torch.zeros_like(many), many))
    there = drawn[drawn[:, 3] > 0]
    area, form = there[:, 2] * there[:, 3] / 1024, there[:, 3] / there[:, 2]
    assert len(there) / 4000 == pytest.approx(0.5, abs=0.03)
    assert area.min() > 0.01 and area.max() < 0.36 and area.mean() == pytest.approx(0.17, abs=0.02)
    assert form.log().mean() == pytest.approx(0, abs=0.05)
    assert (there[:, 0] + there[:, 2] <= 32).all() and (there[:, 1] + there[:, 3] <= 32).all()


def test_three_augment_as_torchvision():
    drawn = draws()
    chosen, sigma = drawn.integer(3), drawn.between(0.1, 2.0)
    expected = torch.stack(
        [
            [
                TF.rgb_to_grayscale(image, 3),
                TF.solarize(image, 128),
                TF.gaussian_blur(image, [13, 13], [float(s), float(s)]),
            ][int(k)]
            for image, k, s in zip(SMOOTH, chosen, sigma, strict=True)
        ]
    )
    ours = ThreeAugment()(SMOOTH, draws())
    assert off(ours, ColorJitter(0.3, 0.3, 0.3)(expected, drawn)) <= 3  # a difference of 1, times the factors
    assert set(chosen.tolist()) == {0, 1, 2}


def test_blur_as_torchvision():
    sigma = torch.linspace(0.1, 2, 40)
    expected = torch.stack(
        [TF.gaussian_blur(i, [13, 13], [float(s), float(s)]) for i, s in zip(SMOOTH, sigma, strict=True)]
    )
    assert off(gaussian_blur(SMOOTH, sigma), expected) <= 1
    assert gaussian_blur(SMOOTH[:, :, :4, :3], sigma).shape == (40, 3, 4, 3)


@pytest.mark.parametrize("resize", [1.0, 256 / 224, 2.0])
def test_resize_and_centre_crop_as_torchvision(resize):
    side = round(32 * resize)
    expected = TF.center_crop(TF.resize(SMOOTH, [side, side], antialias=True), [32, 32])
    assert off(ResizeAndCenterCrop(resize)(SMOOTH, draws()), expected) <= 1


def test_evaluation_is_transformed_and_training_is_not():
    data = Digits(batch_size=32, image_size=28, eval_transforms=[ResizeAndCenterCrop(1.5)])
    data.setup("fit")
    plain = Digits(batch_size=32, image_size=28)
    plain.setup("fit")
    first, second = (next(iter(d.val_dataloader())) for d in (data, plain))
    pixels = data.val.source.images[first.index]
    assert first.images.equal(data.normaliser(ResizeAndCenterCrop(1.5)(pixels, draws())))
    assert not first.images.equal(second.images)
    assert next(iter(train_loader(data))).images.equal(next(iter(train_loader(plain))).images)


# The crop that is chosen before the decode


def photographs(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in range(2):
        (root / f"class_{label}").mkdir(parents=True)
        for number in range(8):
            size = [(60, 45), (45, 60), (300, 200)][number % 3]
            rough = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
            picture = rough.resize(size, Image.Resampling.BICUBIC)
            picture.save(root / f"class_{label}" / f"{number}.{'png' if number % 2 else 'jpg'}")
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_a_part_of_the_file_is_decoded(tmp_path, workers):
    root = photographs(tmp_path / "p")
    transforms_of = [RandomResizedCrop(), RandomErasing(0.5)]

    def loader(**options):
        given = {"image_size": 24, "batch_size": 4, "val_size": 0, "from_files": True, "augment": transforms_of}
        data = ImageFolder(str(root), **given | options)
        data.setup("fit")
        return data, train_loader(data, start=(1, 0))

    data, batches = loader(num_workers=workers)
    first = list(batches)
    names = [name for name, _ in data.layout.parts["train"]]
    for batch in first:
        drawn = Draws(0, batch.view, batch.index)
        boxes = RandomResizedCrop().choices(drawn)
        rest = RandomErasing(0.5)
        expected = []
        for index, choose in zip(batch.index.tolist(), boxes, strict=True):
            picture = TF.pil_to_tensor(Image.open(root / names[index]).convert("RGB"))
            x, y, w, h = choose(picture.shape[2], picture.shape[1])
            expected.append(TF.resized_crop(picture, y, x, h, w, [24, 24], antialias=True))
        theirs = data.normaliser(rest(torch.stack(expected), drawn))
        ours = batch.images
        # a JPEG that is reduced while it is decoded differs slightly from one that is resized afterwards
        assert (ours - theirs).abs().mean() < 0.03
    again = list(loader(num_workers=workers)[1])
    assert all(a.images.equal(b.images) for a, b in zip(first, again, strict=True))
    mixed = list(loader(num_workers=workers, batch_size=8)[1])
    assert torch.cat([b.images for b in mixed]).equal(torch.cat([b.images for b in first]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandAugment(0), lambda: RandAugment(2, 31), lambda: AutoAugment("mnist"), lambda: AugMix(0),
        lambda: AugMix(depth=0), lambda: RandomResizedCrop((0, 1)), lambda: RandomResizedCrop(ratio=(2, 1)),
        lambda: RandomErasing(1.5), lambda: RandomErasing(scale=(0.5, 2)), lambda: ResizeAndCenterCrop(0.5),
        lambda: ThreeAugment(2),
    ],
)  # fmt: skip
def test_bad_options(make):
    with pytest.raises(InputError):
        make()


def test_all_of_them_are_transforms():
    assert all(isinstance(t, Transform) for ts in ALL.values() for t in ts)
    assert math.isclose(ResizeAndCenterCrop().resize, 256 / 224)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_transform_takes_the_smallest_pictures(size):
    """Or it says which it can take."""
    transforms = [getattr(dl, name) for name in dl.__all__ if inspect.isclass(getattr(dl, name))]
    transforms = [one for one in transforms if issubclass(one, Transform) and not inspect.isabstract(one)]
    assert len(transforms) >= 15
    for made, channels in itertools.product(transforms, (1, 3)):
        images = torch.randint(0, 256, (200, channels, size, size), dtype=torch.uint8)
        number = torch.arange(200)
        try:
            found = augment(images, [made()], 0, number % 3, number)
        except InputError as refused:
            assert f"{size}x{size}" in str(refused)
        else:
            assert found.shape == images.shape and found.dtype == torch.uint8
