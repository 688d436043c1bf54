"""Arguments of other kinds than their type hints say, and all that is allowed."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import transforms

import distill_lightning as dl
from distill_lightning.kinds import misplaced
from distill_lightning.preprocessing import ZCA

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def net() -> nn.Module:
    return dl.models.LeNet300100(image_size=8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dl.Digits(root=Path("here"), leave_out=[3, "4"]),
        lambda: dl.Digits(leave_out=range(3)),
        lambda: dl.Digits(leave_out=()),
        lambda: dl.Digits(augment=(dl.RandomFlip(), dl.RandomCrop(1)), mix=dl.Mixup(), preprocess=ZCA()),
        lambda: dl.Digits(class_weights={"3": 2, 4: np.float32(0.5)}, train_part="10 per class"),
        lambda: dl.PlainNetwork(net(), mean=np.array([0.5]), std=torch.ones(1)),
        lambda: dl.KD(net(), teacher=Path("a.ckpt"), channels_last=np.bool_(True)),
        lambda: dl.KD(dl.models.LeNet300100, teacher=[net(), "a.ckpt", dl.PlainNetwork(net())]),
        lambda: dl.KD("LeNet300100", optimizer=SGD, schedule=dl.Cosine()),
        lambda: dl.KD(functools.partial(dl.models.LeNet300100), schedule=lambda optimizer: None),
        lambda: dl.DML(net(), nn.ModuleList([net()])),
        lambda: dl.DML(dl.models.ConvNet, [dl.models.ConvNet, "LeNet300100"]),
        lambda: dl.RandomErasing(scale=[0.1, 0.2], ratio=(0.5, 2)),
        lambda: dl.Trainer(np.int64(3), callbacks=dl.EMA(), precision="16-mixed", log_dir=Path("logs")),
        lambda: dl.Trainer(3, callbacks=(dl.EMA(),), devices="auto", logger=False, max_time={"hours": 1}),
        lambda: dl.Trainer(3, devices=[0], max_time="00:01:00:00", deterministic="warn", checkpoint=dl.RunCheckpoint()),
    ],
)
def test_what_is_allowed_is_made(make):
    make()


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (bool, "true", ("x", "'true'", "True or False")),
        (bool, 2, ("x", "2", "True or False")),
        (str | None, 3, ("x", "3", "a text or None")),
        (list[str], "a", ("x", "'a'", "a list, as ['a']")),
        (list[str], ["a", 3], ("x[1]", "3", "a text")),
        (list[list[str]], [["a"], [nn.ReLU]], ("x[1][0]", "the class ReLU", "a text")),
        (tuple[str, str], ["a"], ("x", "a list", "a list of 2, each a text")),
        (dict[str, int], ["a"], ("x", "a list", "a dict")),
        (type[nn.Module], nn.ReLU(), ("x", "a ReLU of torch", "a type")),
        (nn.Module | str, nn.ReLU, ("x", "the class ReLU", "an object, as ReLU(...)")),
        (nn.Module | None, dl.Digits, ("x", "the class Digits", "a network or None")),
        (str | None, "a" * 100 + "\n", None),
        (list[str] | None, {"a": 1}, ("x", "a dict", "a list of text or None")),
        (list[str], transforms.Resize(3), ("x", "a Resize of torchvision", "a list of text")),
    ],
)
def test_what_does_not_fit_is_named(hint, value, words):
    assert misplaced(hint, value, "x") == words


def test_a_users_own_class_is_checked_with_its_own_hints():
    class Mine(dl.KD):
        def __init__(self, network: nn.Module, other: nn.Module, **kwargs) -> None:
            super().__init__(network, **kwargs)

    Mine(net(), net())
    with pytest.raises(dl.InputError, match="Mine.other is 'ConvNet': it must be a network"):
        Mine(net(), "ConvNet")
    with pytest.raises(dl.InputError, match=r"Mine has no option temprature; did you mean temperature\?"):
        Mine(net(), net(), temprature=3)
