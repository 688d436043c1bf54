"""The ranges of numbers: declared for every number of every class with options, and checked when an object is made."""

import collections.abc
import inspect
import math
import typing
from abc import ABC
from typing import Annotated, Any

import numpy as np
import pytest
from lightning.pytorch.callbacks import Callback
from torch import nn

from distill_lightning import ranges
from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.augment import ColorJitter, RandomCrop, RandomScale, Transform
from distill_lightning.data.base import ImageData
from distill_lightning.data.digits import Digits
from distill_lightning.data.mixing import Mixing, Mixup
from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.dlb import DLB
from distill_lightning.methods.kd import KD
from distill_lightning.methods.snapshot import Snapshot
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.ranges import BelowOne, Count, CountOrZero, Finite, Positive, Range, Ranged, faults, limits_of
from distill_lightning.schedules import Cosine, MultiStep, Schedule
from distill_lightning.signatures import REQUIRED, signature

KINDS = (Method, ImageData, Transform, Mixing, Schedule, Callback, nn.Module, PlainNetwork)


def named_by_options() -> list[type]:
    """All public classes of the package that an option can name, and the networks' parts."""

    def below(base: type) -> list[type]:
        return [base, *(found for one in type.__subclasses__(base) for found in below(one))]

    found = {one for kind in KINDS for one in below(kind) if one.__module__.startswith("distill_lightning.")}
    rooms = ("methods", "data", "callbacks", "models", "schedules", "checkpoints")
    named = [one for one in found if one.__module__.split(".")[1] in rooms and not one.__name__.startswith("_")]
    return sorted(named, key=lambda one: one.__qualname__)


def numbers_without_range(hint: Any) -> bool:
    """Whether a number in a type hint has no range. Keys are names, and so are numbers that may also be texts."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return not limits_of(hint)
    if origin in (typing.Literal, collections.abc.Callable):
        return False
    if origin is dict:
        return numbers_without_range(inner[1])
    if inner:
        return set(inner) != {int, str} and any(map(numbers_without_range, inner))
    return hint in (int, float)


@pytest.mark.parametrize("made", named_by_options(), ids=lambda made: made.__name__)
def test_every_number_has_a_range_and_a_default_within(made):
    for name, argument in signature(made).arguments.items():
        if not argument.owner.__module__.startswith("distill_lightning."):
            continue
        assert not numbers_without_range(argument.hint), f"{made.__name__}.{name} has no range: see ranges.py"
        if argument.default is not REQUIRED:
            assert not [*faults(argument.hint, argument.default, name)]
        assert not limits_of(argument.hint) or issubclass(made, Ranged), f"nobody checks {made.__name__}.{name}"


def test_a_number_without_range_is_found():
    for bare in (int, float | None, dict[str, float], list[tuple[Count, int]], Annotated[int, "words"]):
        assert numbers_without_range(bare)
    for fine in (
        Count,
        dict[str | int, Finite],
        list[str | int],
        bool,
        str,
        typing.Literal[3, 4],
        CountOrZero | BelowOne,
    ):
        assert not numbers_without_range(fine)


def net() -> nn.Module:
    return LeNet300100(image_size=8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KD(net(), temperature=0), "KD.temperature is 0: it must be above 0"),
        (lambda: KD(net(), math.nan), "KD.temperature is nan: it must be finite, above 0"),
        (lambda: KD(net(), temperature="4"), "KD.temperature is '4': it must be a number, above 0"),
        (lambda: KD(net(), soft_weight=0, hard_weight=0), "KD.soft_weight and KD.hard_weight are both 0: one"),
        (lambda: KD(net(), class_bias={"3": math.nan}), "KD.class_bias[3] is nan: it must be a finite number"),
        (lambda: DLB(net(), alpha=math.inf), "DLB.alpha is inf: it must be finite, 0 or more"),
        (lambda: Baseline(net(), label_smoothing=1), "Baseline.label_smoothing is 1: it must be from 0 to below 1"),
        (lambda: Snapshot(net(), cycles=1), "Snapshot.cycles is 1: it must be 2 or more"),
        (lambda: Snapshot(net(), cycles=2.5), "Snapshot.cycles is 2.5: it must be a whole number, 2 or more"),
        (lambda: Digits(num_workers=-1), "Digits.num_workers is -1: it must be from 0 to 512"),
        (lambda: Digits(val_size=1.5), "Digits.val_size is 1.5: it must be an int of 0 or more, or a float from 0 to"),
        (lambda: Digits(image_size=7), "Digits.image_size is 7: it must be 8 or more"),
        (lambda: Digits(batch_size=None), "Digits.batch_size is None: it must be a number, 1 or more"),
        (lambda: RandomCrop(0), "RandomCrop.padding is 0: it must be 1 or more"),
        (lambda: ColorJitter(hue=0.6), "ColorJitter.hue is 0.6: it must be from 0 to 0.5"),
        (lambda: RandomScale(2.0, 1.0), "RandomScale.smallest is 2.0: it must be at most largest, 1.0"),
        (lambda: Mixup(alpha=math.inf), "Mixup.alpha is inf: it must be finite, above 0"),
        (lambda: MultiStep([1, math.nan]), "MultiStep.milestones[1] is nan: it must be finite, 0 or more"),
        (lambda: Cosine(-1), "Cosine.warmup_epochs is -1: it must be 0 or more"),
        (lambda: Lottery(also={"0.bias": 1.0}), "Lottery.also[0.bias] is 1.0: it must be from 0 to below 1"),
        (lambda: SoftTargets("x.ckpt", views=0), "SoftTargets.views is 0: it must be 1 or more"),
        (lambda: ConvNet(dropout=2), "ConvNet.dropout is 2: it must be from 0 to 1"),
        (lambda: ConvNet(width=True), "ConvNet.width is True: it must be a number, 1 or more"),
        (lambda: PlainNetwork(net(), std=[0.0]), "PlainNetwork.std[0] is 0.0: it must be above 0"),
    ],
)
def test_from_python(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_what_is_allowed_is_made():
    assert KD(net(), np.float64(2.0), hard_weight=0).temperature == 2  # which is a float of Python
    assert Digits(val_size=3, train_part="10 per class", noise_map=None, seed=None).val_size == 3
    assert Digits(val_size=0.0, split_seed=-(10**12)).val_size == 0
    assert MultiStep([1, 2.5], gamma=1).gamma == 1


def test_subclasses_of_users_are_checked_with_their_own_ranges():
    class Mine(KD):
        def __init__(self, network: nn.Module, sharpness: Positive = 1.0, **kwargs: Any) -> None:
            super().__init__(network, **kwargs)

    for given in ({"sharpness": 0}, {"temperature": 0}):
        with pytest.raises(InputError, match="Mine"):
            Mine(net(), **given)
    Mine(net(), 2.0, temperature=3.0)


@pytest.mark.parametrize(
    ("limits", "words", "inside", "outside"),
    [
        (Range(), "a finite number", [-1e300, 0], [math.inf, math.nan]),
        (Range(0), "0 or more", [0], [-1e-9]),
        (Range(above=0), "above 0", [1e-9], [0]),
        (Range(0, 1), "from 0 to 1", [0, 1], [1.1]),
        (Range(0, below=1), "from 0 to below 1", [0], [1]),
        (Range(above=0, at_most=1), "above 0 and at most 1", [1], [0]),
        (Range(above=0, below=1), "above 0 and below 1", [0.5], [0, 1]),
    ],
)
def test_ranges_in_words(limits, words, inside, outside):
    assert str(limits) == words
    assert all(number in limits for number in inside) and not any(number in limits for number in outside)


def test_a_copy_needs_no_arguments():
    import copy

    assert isinstance(copy.deepcopy(ConvNet(width=2)), ConvNet)
    assert issubclass(Transform, ABC) and inspect.signature(ranges.Ranged.__new__)
