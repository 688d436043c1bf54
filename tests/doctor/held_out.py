"""Makes runs of this program whose illness is known, to judge the doctor by.

    python tests/doctor/held_out.py DATA FOLDER

DATA is the folder of MNIST and CIFAR-100. The runs go to FOLDER/logs, and their curves with the illness of each to
FOLDER/curves.csv. In each setting there is a family of rates, of which a fixed draw is taken; the other runs have its
best rate. An illness counts only if it does harm, compared with the same training without it. The truth of a run is how
it was made; the rules are in docs/explanations/doctor.md.
"""

import csv
import functools
import json
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import distill_lightning as dl
from distill_lightning.doctor import Curves, Series
from distill_lightning.doctor.reading import read

STEPS = 400
FACTORS = (0.001, 0.01, 0.03, 0.1, 0.33, 1.0, 3.3, 10.0, 30.0, 100.0)
"""The rates of a family, relative to one that is usual for the setting."""
TAGS = {
    "loss": "train/loss",
    "largest": "train/loss_max",
    "deviation": "train/loss_std",
    "accuracy": "train/epoch_accuracy",
    "val_loss": "val/nll",
    "val_accuracy": "val/accuracy",
    "rate": "train/lr",
}


@dataclass(frozen=True)
class Setting:
    """What the runs of a family have in common."""

    name: str
    network: Callable[..., nn.Module]
    small: Callable[..., nn.Module]
    data: Callable[..., Any]
    pictures: int
    """Of each class, for training."""
    optimizer: Callable[..., Any]
    rate: float
    schedule: Callable[[], Any]
    batch: int = 50
    augment: list[Any] = field(default_factory=list)
    norm: bool = True
    classes: int = 10

    @property
    def epochs(self) -> int:
        """The number of epochs of a run of ``STEPS`` steps."""
        return STEPS // (self.classes * self.pictures // self.batch)


class Linear(nn.Sequential):
    """A linear classifier of pictures that were made smaller."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9 * in_channels, num_classes))


def settings(root: str) -> list[Setting]:
    mnist = functools.partial(dl.MNIST, root=root)
    classes = {
        f"cifar_{n}": functools.partial(dl.CIFAR100, root=root, classes=[*range(2, 2 + 4 * n, 4)]) for n in (10, 20)
    }
    sgd = functools.partial(torch.optim.SGD, momentum=0.9, weight_decay=5e-4)
    wide, conv, plain = (
        functools.partial(dl.models.ConvNet, **given)
        for given in ({"width": 16}, {"width": 8}, {"width": 8, "norm": False})
    )
    crop, flip = dl.RandomCrop(padding=2), dl.RandomFlip()
    one = functools.partial(dl.models.ConvNet, width=1)
    return [
        Setting("convnet mnist", conv, one, mnist, 100, sgd, 0.1, dl.Cosine, augment=[crop]),
        Setting(
            "lenet mnist", dl.models.LeNet300100, Linear, mnist, 100, torch.optim.Adam, 1e-3, dl.Constant, norm=False
        ),
        Setting(
            "resnet cifar_10", dl.models.ResNet8, one, classes["cifar_10"], 100, sgd, 0.1, dl.Cosine, augment=[flip]
        ),
        Setting("convnet digits", wide, Linear, dl.Digits, 100, torch.optim.AdamW, 3e-3, dl.Polynomial, batch=32),
        Setting(
            "plain cifar_20", plain, Linear, classes["cifar_20"], 200, sgd, 0.03, dl.Constant, norm=False, classes=20
        ),
        Setting(
            "resnet cifar_20",
            dl.models.ResNet8,
            one,
            classes["cifar_20"],
            100,
            torch.optim.Adam,
            3e-3,
            dl.OneCycle,
            classes=20,
        ),
    ]


def lagging(network: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The network with batch norms that forget too slowly."""

    def make(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
        made = network(num_classes=num_classes, in_channels=in_channels)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1e-3
        return made

    return make


class Maker:
    """Makes the runs of a setting."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting, self.folder = setting, folder

    def run(
        self,
        name: str,
        rate: float,
        *,
        network: Callable[..., nn.Module] | None = None,
        batch: int | None = None,
        pictures: int | None = None,
        longer: float = 1.0,
        schedule: Any = None,
        augment: bool = True,
        noise: float = 0.0,
        **more: Any,
    ) -> Curves:
        """The curves of a run that is made now, or was made before."""
        one, batch = self.setting, batch or self.setting.batch
        places = self.folder / "logs" / one.name.replace(" ", "-") / name
        classes = one.classes
        per_class = pictures or one.pictures
        data = one.data(
            batch_size=batch,
            train_part=f"{per_class} per class",
            augment=one.augment if augment else [],
            label_noise=noise,
        )
        if not (places / "summary.json").exists():
            steps = round(longer * STEPS)
            in_epoch = min(classes * per_class // batch, steps // 8)  # so that there are eight validations at least
            epochs = steps // in_epoch
            method = dl.Baseline(
                network or one.network,
                optimizer=functools.partial(one.optimizer, lr=rate),
                schedule=schedule or one.schedule(),
                **more,
            )
            trainer = dl.Trainer(
                epochs,
                name=name,
                log_dir=str(places.parent),
                log_every_n_steps=max(1, steps // 40),
                check_val_every_n_epoch=max(1, epochs // 10),
                enable_progress_bar=False,
                doctor=False,
                limit_train_batches=in_epoch,
            )
            folder: Any = None
            try:
                folder = trainer.fit(method, data).folder
            except FloatingPointError:
                folder = next(path.parent for path in places.parent.rglob(f"{name}/metrics.csv"))
            places.parent.mkdir(parents=True, exist_ok=True)
            if Path(folder) != places:
                Path(folder).rename(places)
            (places / "summary.json").touch()
        return read(places, num_classes=classes, batch_size=batch)


def end(curves: Curves) -> float:
    """The training loss over the last tenth, relative to that of guessing."""
    last = curves.loss.values[-max(1, len(curves.loss) // 10) :]
    value = float(last.mean()) / math.log(curves.num_classes or 10)
    return value if math.isfinite(value) else math.inf


def best(curves: Curves) -> float:
    """The accuracy at the last validation."""
    return float(curves.val_accuracy.values[-1]) if len(curves.val_accuracy) else 0.0


def ahead(curves: Curves) -> float:
    """By how much training is better than validation at the end."""
    return float(curves.accuracy.values[-1]) - best(curves) if len(curves.accuracy) else 0.0


def made(setting: Setting, folder: Path) -> list[tuple[str, str | None, str, Curves]]:
    """The runs of a setting: the illness, a second one, the name, and the curves."""
    maker = Maker(setting, folder)
    families = {factor: maker.run(f"rate-{factor:g}", factor * setting.rate) for factor in FACTORS}
    lowest = min(families, key=lambda factor: end(families[factor]))
    good = [f for f in FACTORS if end(families[f]) <= 1.1 * end(families[lowest]) + 0.02]
    rate, reference = lowest * setting.rate, families[lowest]
    longer = maker.run("longer", rate, longer=2.5)
    too_short = end(reference) - end(longer) > 0.15
    runs: list[tuple[str, str | None, str, Curves]] = []
    of_rates: dict[str, list[float]] = {"diverged": [], "lr_too_high": [], "lr_too_low": [], "healthy": []}
    for factor, curves in families.items():
        worse = end(curves) - end(reference) > 0.15
        if end(curves) > 1.3:
            of_rates["diverged"].append(factor)
        elif factor in good and not too_short and ahead(curves) <= 0.12:
            of_rates["healthy"].append(factor)
        elif worse and factor >= 3 * max(good):
            of_rates["lr_too_high"].append(factor)
        elif worse and factor <= min(good) / 3:
            of_rates["lr_too_low"].append(factor)
    draw = random.Random(setting.name)
    for illness, factors in of_rates.items():
        for factor in sorted(draw.sample(factors, min(len(factors), 1 if illness == "diverged" else 2))):
            runs.append((illness, None, f"rate-{factor:g}", families[factor]))
    if too_short:
        runs.append(("lr_too_low", None, f"rate-{lowest:g}", reference))

    for batch in (2, 4):
        curves = maker.run(f"batch-{batch}", rate, batch=batch)
        if end(curves) - end(reference) > 0.1:
            runs.append(("batch_too_small", "diverged" if end(curves) > 1.25 else None, f"batch-{batch}", curves))
    for noise in (0.3, 0.5):
        curves = maker.run(f"labels-{noise}", rate, noise=noise)
        if best(reference) - best(curves) > 0.03:
            runs.append(("wrong_labels", "overfits" if ahead(curves) > 0.12 else None, f"labels-{noise}", curves))
    for share in (10, 4):
        curves = maker.run(f"few-{share}", rate, pictures=setting.pictures // share, augment=False)
        if best(reference) - best(curves) > 0.08 and ahead(curves) > 0.08:
            runs.append(("overfits", None, f"few-{share}", curves))
    early = dl.MultiStep([max(1, setting.epochs // 10)], gamma=0.03)
    curves = maker.run("early", rate, schedule=early)
    if end(curves) - end(reference) > 0.1:
        runs.append(("lr_dropped_early", None, "early", curves))
    dead = maker.run("dead", rate, initializer=[dl.initializers.Constant()])
    if end(dead) > 0.97:
        runs.append(("no_learning", None, "dead", dead))
    if setting.norm:
        curves = maker.run("lagging", rate, network=lagging(setting.network))
        if best(reference) - best(curves) > 0.2:
            runs.append(("eval_mismatch", None, "lagging", curves))
    curves = maker.run("small", rate, network=setting.small)
    more = maker.run("small-longer", rate, network=setting.small, longer=2.5)
    if end(curves) - end(reference) > 0.15 and end(curves) - end(more) < 0.1:
        runs.append(("underfits", None, "small", curves))
    return runs


def write(path: Path, runs: dict[str, tuple[str, str | None, Setting, Curves]]) -> None:
    """The curves of the runs in one table, with four digits."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["run", "step", "tag", "value"])
        for name, (illness, also, setting, curves) in runs.items():
            meta: dict[str, Any] = {"illness": illness, "half": "the program's own"} | ({"also": also} if also else {})
            meta |= {
                key: getattr(curves, key) for key in ("num_classes", "batch_size", "smoothing", "mixed", "augmented")
            }
            meta |= {"setting": setting.name}
            rows.writerow([name, 0, "meta", json.dumps(meta)])
            for attribute, tag in TAGS.items():
                series: Series = getattr(curves, attribute)
                rows.writerows(
                    [name, f"{step:g}", tag, f"{value:.4g}"]
                    for step, value in zip(series.steps, series.values, strict=True)
                )


def main(root: str, folder: Path) -> None:
    runs: dict[str, tuple[str, str | None, Setting, Curves]] = {}
    for setting in settings(root):
        for illness, also, name, curves in made(setting, folder):
            runs[f"{setting.name}:{name}"] = (illness, also, setting, curves)
        print(setting.name, len(runs), flush=True)
        write(folder / "curves.csv", runs)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
