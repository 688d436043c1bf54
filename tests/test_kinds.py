"""Arguments of other kinds than their type hints say, and all that is allowed."""

import functools
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torchvision import transforms

import distill_lightning as dl
from distill_lightning.kinds import misplaced
from distill_lightning.preprocessing import ZCA
from distill_lightning.ranges import Count, Fraction

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def net() -> nn.Module:
    return dl.models.LeNet300100(image_size=8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dl.Digits(root=Path("here"), leave_out=[3, "4"]),
        lambda: dl.Digits(leave_out=()),
        lambda: dl.Digits(augment=(dl.RandomFlip(), dl.RandomCrop(1)), mix=dl.Mixup(), preprocess=ZCA()),
        lambda: dl.Digits(class_weights={"3": 2, 4: np.float32(0.5)}, train_part="10 per class"),
        lambda: dl.PlainNetwork(net(), mean=(0.5,), std=[1]),
        lambda: dl.KD(net(), teacher=Path("a.ckpt"), channels_last=np.bool_(True)),
        lambda: dl.KD(dl.models.LeNet300100, teacher=[net(), "a.ckpt", dl.PlainNetwork(net())]),
        lambda: dl.KD("LeNet300100", optimizer=SGD, schedule=dl.Cosine()),
        lambda: dl.KD(functools.partial(dl.models.LeNet300100), schedule=lambda optimizer: None),
        lambda: dl.DML(net(), nn.ModuleList([net()])),
        lambda: dl.DML(dl.models.ConvNet, [dl.models.ConvNet, "LeNet300100"]),
        lambda: dl.RandomErasing(scale=[0.1, 0.2], ratio=(0.5, 2)),
        lambda: dl.Trainer(3, callbacks=dl.EMA(), precision="16-mixed", log_dir=Path("logs")),
        lambda: dl.Trainer(3, callbacks=(dl.EMA(),), devices="auto", logger=False, max_time={"hours": 1}),
        lambda: dl.Trainer(3, devices=[0], max_time="00:01:00:00", deterministic="warn", checkpoint=dl.RunCheckpoint()),
    ],
)
def test_what_is_allowed_is_made(make):
    make()


def test_a_number_of_numpy_trains_and_is_written_down():
    options = {"enable_progress_bar": False, "accelerator": "cpu", "limit_test_batches": np.int64(1)}
    data = dl.Digits(train_part=np.int64(64), batch_size=np.int32(32))
    result = dl.Trainer(np.int64(1), **options).fit(dl.Baseline("ConvNet"), data)
    config = yaml.safe_load((result.folder / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == config["trainer"]["limit_test_batches"] == 1
    with pytest.raises(dl.InputError, match="trainer.accumulate_grad_batches is 0"):
        dl.Trainer(1, accumulate_grad_batches=np.int64(0))


class Shape(typing.Protocol):
    """A class of which nothing can be an instance, when it is asked."""

    sides: int


class Fields(typing.TypedDict):
    """The same."""

    sides: int


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (bool, "true", ("x", "'true'", "True or False")),
        (bool, 2, ("x", "2", "True or False")),
        (str | None, 3, ("x", "3", "a text or None")),
        (list[str], "a", ("x", "'a'", "a list, as ['a']")),
        (list[str], ["a", 3], ("x[1]", "3", "a text")),
        (list[list[str]], [["a"], [nn.ReLU]], ("x[1][0]", "the class ReLU", "a text")),
        (tuple[str, str], ["a"], ("x", "a list", "a list of 2 (a text each)")),
        (list, 3, ("x", "3", "a list, as [3]")),
        (list[float], np.array([1.0]), ("x", "a ndarray of numpy", "a list (a number each)")),
        (list[int] | None, range(3), ("x", "a range", "a list (a number each) or None")),
        (dict[str, int], ["a"], ("x", "a list", "a dict")),
        (type[nn.Module], nn.ReLU(), ("x", "a ReLU of torch", "a class")),
        (type[nn.Module], dl.Digits, ("x", "the class Digits", "a class")),
        (nn.Module | str, nn.ReLU, ("x", "the class ReLU", "an object, as ReLU(...)")),
        (nn.Module | None, dl.Digits, ("x", "the class Digits", "a network or None")),
        (list[str] | None, {"a": 1}, ("x", "a dict", "a list (a text each) or None")),
        (list[str], transforms.Resize(3), ("x", "a Resize of torchvision", "a list (a text each)")),
        (Annotated[nn.Module, "words"], 3, ("x", "3", "a network")),
        (Fraction | Literal["auto"], "most", ("x", "'most'", "one of 'auto' or a number")),
        (Literal["a", 1], True, ("x", "True", "one of 'a', 1")),
    ],
)
def test_what_does_not_fit_is_named(hint, value, words):
    assert misplaced(hint, value, "x") == words


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (None, 3),
        (Any, 3),
        (object, nn.ReLU),
        (list, [1, "a"]),
        (list[Any], [1, "a"]),
        (tuple[()], ()),
        (tuple[int, ...], [1, 2]),
        (Annotated[nn.Module, "words"], nn.ReLU()),
        (Fraction | Literal["auto"], "auto"),
        (Fraction | Literal["auto"], 0.5),
        (nn.Module | type[nn.Module], nn.ReLU),
        (type[nn.Module], nn.ReLU),
        (typing.Callable, print),
        (Callable[[int], int] | None, nn.ReLU),
        (Shape, 3),
        (Fields, {"sides": 3}),
        (typing.TypeVar("T"), 3),
        ("Later", 3),
        (Literal["a"], "a"),
    ],
    ids=str,
)
def test_what_fits_or_cannot_be_asked_is_allowed(hint, value):
    assert misplaced(hint, value, "x") is None


def test_a_users_own_class_is_checked_with_its_own_hints():
    class Mine(dl.KD):
        def __init__(self, network: nn.Module, other: nn.Module, **kwargs) -> None:
            super().__init__(network, **kwargs)

    Mine(net(), net())
    with pytest.raises(dl.InputError, match="Mine.other is 'ConvNet': it must be a network"):
        Mine(net(), "ConvNet")
    with pytest.raises(dl.InputError, match=r"Mine has no option temprature; did you mean temperature\?"):
        Mine(net(), net(), temprature=3)


def test_hints_of_users_that_say_little_refuse_nothing():
    class Little(dl.Transform):
        def __init__(self, share=0.5, extra: Any = None, depth: int = None, peers: int = 3, later: "Missing" = 1):  # type: ignore  # noqa: F821, RUF013
            self.share = share

        def __call__(self, images, draws):
            return images

    Little(0.3)
    Little(share=nn.ReLU, extra=[1], depth=None, peers=5, later="x")

    class Deep(dl.Transform):
        def __init__(self, depth: int = None, peers: Count = 3):  # type: ignore  # noqa: RUF013
            self.depth = depth

        def __call__(self, images, draws):
            return images

    Deep(depth=None, peers=5)
    with pytest.raises(dl.InputError, match="Deep.depth is 'a': it must be a number"):
        Deep("a")
