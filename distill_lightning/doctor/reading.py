"""Reads curves from a run's folder, a CSV of step, tag and value, a CSVLogger's metrics.csv, or TensorBoard's events.

The files may be another program's. They are read as plain data; nothing in them is imported or run.
"""

import csv
import dataclasses
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill_lightning.doctor.curves import Array, Curves, Series
from distill_lightning.doctor.tags import curves_of
from distill_lightning.errors import InputError
from distill_lightning.runs import RunConfig, flatten

EVENTS = "*.tfevents.*"
LARGEST_BYTES = 2**28
LARGEST_STEP = 2**53
EASY = ("RandomFlip", "RandomCrop")
"""Augmentations that hardly lower the training accuracy."""
DROPS = re.compile(r"drop|stochastic_depth")
"""In the names of options of networks: parts are left out in training, as by dropout."""
TRAINED = {"weights", "pretrained"}
"""Options of networks that give them trained weights."""
LABELS = ("ce", "hard", "ce_0")
"""The terms of a loss that are the cross-entropy of the labels. The first that is there counts."""
WITHIN_WINDOWS = {"max", "std", "step", "epoch"}
"""What else is logged of a loss as ``train/loss_NAME``."""

Points = dict[str, list[tuple[float, float]]]


def find(places: Iterable[Path]) -> list[Path]:
    """The files and folders with curves: each place itself, or what lies below it.

    Raises:
        InputError: a place does not exist, or a folder has no curves in it.
    """
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            below = [place] if _has_curves(place) else sorted({path.parent for path in _below(place)})
            if not below:
                raise InputError(
                    f"there are no curves in {place}: give a run's folder, metrics.csv or TensorBoard's events"
                )
            found |= dict.fromkeys(below)
        elif place.is_file():
            found[place] = None
        else:
            raise InputError(f"there is no file or folder {place}")
    return list(found)


def read(place: Path, num_classes: int | None = None, batch_size: int | None = None) -> Curves:
    """The curves in a file or folder, which `find` gave.

    Args:
        place: the file or folder.
        num_classes: K, where no configuration says it.
        batch_size: the number of pictures of an optimizer step, where no configuration says it.

    Raises:
        ValueError: the file is damaged, too large, or has no curves.
        OSError: the file cannot be read.
    """
    if place.is_dir():
        path = place / "metrics.csv" if (place / "metrics.csv").is_file() else sorted(place.glob(EVENTS))
    else:
        path = place
    points, of_epochs = _points(path)
    series = {tag: Series.of(pairs) for tag, pairs in points.items()}
    folder = place if place.is_dir() else place.parent
    config = _config(folder) if place.is_dir() or place.name == "metrics.csv" else None
    of_labels = config is None or _has_loss_of_labels(series, config)
    if config is not None and of_labels:
        series = _loss_of_labels(series, config)
    facts = {"num_classes": num_classes, "batch_size": batch_size, "of_labels": of_labels, "of_epochs": of_epochs}
    curves = Curves(str(place), **curves_of(series), **facts)  # type: ignore[arg-type]
    return curves if config is None else _with_config(curves, config)


def _points(path: Path | list[Path]) -> tuple[Points, bool]:
    """The points of a CSV or of files of events, and whether their steps are epochs."""
    if isinstance(path, list):
        return _events(path), False
    return (_events([path]), False) if "tfevents" in path.name else _table(path)


def _has_curves(folder: Path) -> bool:
    return (folder / "metrics.csv").is_file() or any(folder.glob(EVENTS))


def _below(folder: Path) -> Iterator[Path]:
    for pattern in ("metrics.csv", EVENTS):
        for path in folder.rglob(pattern):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path


def _table(path: Path) -> tuple[Points, bool]:
    """The points of a CSV, in rows of step, tag and value, or with a column for each tag; and whether their steps are
    epochs.
    """
    if (size := path.stat().st_size) > LARGEST_BYTES:
        raise ValueError(f"it has {size} bytes, and at most {LARGEST_BYTES} are read")
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(line.replace("\0", "") for line in file)
        names = {name.strip().lower(): name for name in rows.fieldnames or [] if name}
        try:
            if {"tag", "value"} <= names.keys() and "step" in names:
                return _long(rows, names["step"], names["tag"], names["value"]), False
            step = next((name for name in ("step", "global_step", "iteration", "epoch") if name in names), None)
            if step is None:
                raise ValueError("expected columns step, tag, value, or step and a column for each tag")
            return _wide(rows, names[step]), step == "epoch"
        except csv.Error as error:
            raise ValueError(str(error)) from error


def _long(rows: Iterable[Mapping[str, Any]], step: str, tag: str, value: str) -> Points:
    points: Points = {}
    for row in rows:
        _add(points, row.get(tag), row.get(step), row.get(value))
    return points


def _wide(rows: Iterable[Mapping[str, Any]], step: str) -> Points:
    points: Points = {}
    for row in rows:
        for name, cell in row.items():
            if name not in (step, None) and cell not in ("", None):
                _add(points, name, row.get(step), cell)
    return points


def _add(points: Points, tag: Any, step: Any, value: Any) -> None:
    """Adds a point, unless its step or value is no number: half a line, or a text."""
    try:
        at, number = float(step), float(value)
    except (TypeError, ValueError):
        return
    if math.isfinite(at) and abs(at) <= LARGEST_STEP and tag:
        points.setdefault(str(tag), []).append((at, number))


def _events(paths: list[Path]) -> Points:
    # slow to import, and only needed here
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    points: Points = {}
    for path in paths:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"{path.name} has more than {LARGEST_BYTES} bytes")
        try:
            for record in RawEventFileLoader(str(path)).Load():
                event = Event.FromString(record)
                for one in event.summary.value:
                    _add(points, one.tag, event.step, _scalar(one))
        except Exception as error:  # the library has no common class for what may be wrong with a file
            if not points:
                raise ValueError(f"{path.name} is no file of TensorBoard's events") from error
    return points


def _scalar(value: Any) -> float | None:
    """The number of an event; None if it holds something else. TensorFlow 2 writes numbers as tensors."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if value.HasField("tensor") and value.tensor.dtype == 1:  # float32
        if len(value.tensor.float_val) == 1:
            return float(value.tensor.float_val[0])
        if len(value.tensor.tensor_content) == 4:
            return float(struct.unpack("<f", value.tensor.tensor_content)[0])
    return None


def _config(folder: Path) -> RunConfig | None:
    """The configuration of the run in a folder; None if there is none that can be read."""
    try:
        return RunConfig.read(folder)
    except (InputError, OSError, ValueError):
        return None


def _has_loss_of_labels(series: Mapping[str, Series], config: RunConfig) -> bool:
    """Whether one of the terms of the training loss is that of the labels, with a weight above 0."""
    if config.settings().get("model") == "Specialist":  # its labels are those of some classes, and one for all others
        return False
    terms = {tag.removeprefix("train/loss_"): values for tag, values in series.items() if tag.startswith("train/loss_")}
    if not terms.keys() - WITHIN_WINDOWS:  # a loss without terms is the labels' alone
        return True
    return any(name in terms and bool((terms[name].values != 0).any()) for name in LABELS)


def _loss_of_labels(series: Mapping[str, Series], config: RunConfig) -> dict[str, Series]:
    """The series, with the cross-entropy of the labels as the loss where a method's loss has other terms too."""
    found, arguments = dict(series), _arguments(config.options.get("model"))
    for prefix in ("train/loss", "train/epoch_loss"):
        total = found.get(prefix)
        weight: float | Array = 1.0
        labels = next((found[f"{prefix}_{name}"] for name in LABELS if f"{prefix}_{name}" in found), None)
        if total is None or labels is None or len(labels) != len(total):
            continue
        if f"{prefix}_hard" in found:
            weight = _number(arguments.get("hard_weight")) or 1.0
        elif {f"{prefix}_self", f"{prefix}_virtual"} & found.keys():
            weight = 1 - (_number(arguments.get("alpha")) or 0.0) or 1.0
        elif f"{prefix}_views" in found:  # DDGSD's is the sum over two views
            weight = 2.0
        elif (snapshot := found.get(f"{prefix}_snapshot")) and (temperature := _number(arguments.get("temperature"))):
            weight = np.where(labels.steps < snapshot.steps[0], 1.0, 1 + 1 / temperature)  # from its second cycle on
        found[prefix] = Series(labels.steps, labels.values / weight)
        for name in ("max", "std"):  # they are of the whole loss: as wide for the labels, relative to its mean
            if (other := found.get(f"{prefix}_{name}")) is not None and len(other) == len(total):
                ratio = found[prefix].values / total.values.clip(1e-12)
                found[f"{prefix}_{name}"] = Series(other.steps, other.values * ratio)
    return found


def _with_config(curves: Curves, config: RunConfig) -> Curves:
    """The curves with what the run's configuration says."""
    model, data = _arguments(config.options.get("model")), _arguments(config.options.get("data"))
    trainer = config.options.get("trainer") or {}
    network = _arguments(model.get("network"))
    classes, batch = _number(network.get("num_classes")), _number(data.get("batch_size"))
    augment = [str(one.get("class_path")) for one in data.get("augment") or [] if isinstance(one, dict)]
    hard = any(name.rpartition(".")[2] not in EASY for name in augment)
    options = {key.rpartition(".")[2]: value for key, value in flatten(network).items()}
    dropped = any(DROPS.search(name) and _number(value) for name, value in options.items())
    settings = config.settings()
    accumulated = _number(trainer.get("accumulate_grad_batches")) or 1
    return dataclasses.replace(
        curves,
        num_classes=int(classes) if classes else curves.num_classes,
        batch_size=int(batch * accumulated) if batch else curves.batch_size,
        smoothing=min(_number(model.get("label_smoothing")) or 0.0, 0.99),
        soft_labels=bool(data.get("mix")),
        mixed=bool(data.get("mix")) or hard or dropped,
        augmented=bool(augment),
        goes_on="start_from" in settings or any(options.get(name) for name in TRAINED),
        settings=settings | {"trainer.max_epochs": trainer.get("max_epochs")},
    )


def _arguments(part: Any) -> dict[str, Any]:
    given = part.get("init_args") if isinstance(part, dict) else None
    return given if isinstance(given, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
