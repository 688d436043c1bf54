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
        lambda: dl.Digits(class_weights={"3": 2, 4: np.float64(0.5)}, train_part="10 per class"),
        lambda: dl.PlainNetwork(net(), mean=(0.5,), std=[1]),
        lambda: dl.KD(net(), teacher=Path("a.ckpt"), channels_last=True),
        lambda: dl.KD(dl.models.LeNet300100, teacher=[net(), "a.ckpt", dl.PlainNetwork(net())]),
        lambda: dl.KD("LeNet300100", optimizer=SGD, schedule=dl.Cosine()),
        lambda: dl.KD(functools.partial(dl.models.LeNet300100), schedule=lambda optimizer: None),
        lambda: dl.DML(net(), nn.ModuleList([net()])),
        lambda: dl.Ensemble([net(), "a.ckpt", Path("b.ckpt"), dl.PlainNetwork(net())]),
        lambda: dl.DML(dl.models.ConvNet, [dl.models.ConvNet, "LeNet300100"]),
        lambda: dl.RandomErasing(scale=[0.1, 0.2], ratio=(0.5, 2)),
        lambda: dl.Trainer(3, callbacks=dl.EMA(), precision="16-mixed", log_dir=Path("logs")),
        lambda: dl.Trainer(3, callbacks=(dl.EMA(),), devices="auto", logger=False, max_time={"hours": 1}),
        lambda: dl.Trainer(3, devices=[0], max_time="00:01:00:00", deterministic="warn", checkpoint=dl.RunCheckpoint()),
    ],
)
def test_what_is_allowed_is_made(make):
    make()


def test_a_float_of_numpy_trains_and_is_written_down():
    """It is a float of Python; the other numbers of NumPy are not, and are refused."""
    options = {"enable_progress_bar": False, "accelerator": "cpu", "gradient_clip_val": np.float64(1)}
    data = dl.Digits(train_part=64, batch_size=32, val_size=np.float64(0.1))
    method = dl.Baseline("ConvNet", label_smoothing=np.float64(0.1), optimizer=functools.partial(SGD, lr=np.float64(1)))
    result = dl.Trainer(1, **options).fit(method, data)
    config = yaml.safe_load((result.folder / "config.yaml").read_text())
    assert config["trainer"]["gradient_clip_val"] == 1 and config["data"]["init_args"]["val_size"] == 0.1
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dl.Trainer(np.int64(1)), r"Trainer.max_epochs is .*1.*, no number of Python \(item\(\) gives it\)"),
        (lambda: dl.Trainer(1, limit_test_batches=np.int64(1)), "Trainer.limit_test_batches is .*no number of Python"),
        (lambda: dl.Digits(val_size=torch.tensor(0.1)), "Digits.val_size is tensor.*no number of Python"),
        (lambda: dl.Digits(class_weights={3: np.float32(2)}), r"Digits.class_weights\[3\] is .*no number of Python"),
        (lambda: dl.Digits(augment=(t for t in [dl.RandomFlip()])), "Digits.augment is a generator: it must be a list"),
        (lambda: dl.DML(dl.models.ConvNet, [net()]), "DML.network is a class, but a peer is a network: give"),
        (lambda: dl.DML(net(), [dl.models.ConvNet]), "DML.network is a network, but a peer is a class: give"),
        (lambda: dl.PlainNetwork(dl.models.ConvNet), "PlainNetwork.network is the class ConvNet: it must be an object"),
        (lambda: dl.KD(net(), net()), "KD.temperature is a LeNet300100: it must be a number, above 0"),
        (lambda: dl.Digits(seed=10**13), r"Digits.seed is 10000000000000: it must be from -1e\+12 to 1e\+12"),
        (
            lambda: dl.Trainer(1).fit(dl.Baseline(net()), dl.Digits(), start_optimizer="no"),
            "fit.start_optimizer is 'no': it must be True or False",
        ),
        (
            lambda: dl.Trainer(1).fit(dl.Baseline(net()), dl.Digits(), start_from=net()),
            "fit.start_from is a LeNet300100: it must be a text or None",
        ),
    ],
)
def test_what_would_go_wrong_later_is_refused(make, words):
    with pytest.raises(dl.InputError, match=words):
        make()


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
        (Shape | Callable[[], int], nn.ReLU),
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
