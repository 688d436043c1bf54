"""The data of a run, from its configuration, wherever the run was started."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from distill_lightning.data.augment import Transform
from distill_lightning.data.base import ImageData
from distill_lightning.data.evaluation_views import EvaluationViews
from distill_lightning.data.random_crops import ResizeAndCenterCrop
from distill_lightning.errors import InputError
from distill_lightning.files import is_url
from distill_lightning.specs import lookup, offer, refuse_untrusted
from distill_lightning.values import TrainedOn

offer(ImageData, "distill_lightning.data")
offer(Transform, "distill_lightning.data")
offer(EvaluationViews, "distill_lightning.data")
LEFT_OUT = ("augment", "mix", "seed", "pictures", "eval_transforms", "test_views", "preprocess")
"""Options of the data that do not matter for the pictures themselves."""
ROOT_OR_RANDOM = "give --root FOLDER (root=), or --pictures 0 to compare on random pixels"


def home_of(folder: Path | None, config: Mapping[str, Any]) -> Path:
    """The folder that the relative paths of a run begin in: the one that it was started in, if its own folder tells.

    Args:
        folder: the run's folder, ``<home>/<log_dir>/<data>/<method>/<name>``; None if there is none.
        config: the configuration of the run.
    """
    log_dir = Path(str(config.get("log_dir") or "logs"))
    above = [] if folder is None else [*folder.resolve().parents][2:]
    steps = len(log_dir.parts)
    if log_dir.is_absolute() or len(above) <= steps or above[0].parts[-steps:] != log_dir.parts:
        return Path()
    return above[steps]


def found_from(home: Path, path: str) -> str:
    """A path of a run: as it is or, if there is nothing, within the folder that the run was started in."""
    return str(home / path) if not Path(path).exists() and (home / path).exists() else path


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What evaluation does with a picture before the network gets it.

    Args:
        crop: enlarges the picture and crops its centre; None for the whole picture.
        views: the views whose logits are averaged; None for the picture alone.
    """

    crop: ResizeAndCenterCrop | None = None
    views: EvaluationViews | None = None


def evaluation_of(config: Mapping[str, Any], where: str) -> Evaluation:
    """The options ``eval_transforms`` and ``test_views`` of a run's data.

    Args:
        config: the configuration of the run, as plain data that are not checked.
        where: the run, for errors.

    Raises:
        InputError: a file may not use a class, or a transform draws random numbers.
    """
    arguments = (config.get("data") or {}).get("init_args") or {}
    given = {name: arguments[name] for name in ("eval_transforms", "test_views") if arguments.get(name)}
    if not given:
        return Evaluation()
    hints: dict[str, Any] = {"eval_transforms": list[Transform], "test_views": EvaluationViews}
    refuse_untrusted(given, hints, where)
    parser = ArgumentParser(exit_on_error=False)
    for name in given:
        parser.add_argument(f"--{name}", type=hints[name])
    built = parser.instantiate_classes(parser.parse_object(copy.deepcopy(given)))
    transforms = built.get("eval_transforms") or []
    for one in transforms:
        if len(transforms) > 1 or not isinstance(one, ResizeAndCenterCrop):
            raise InputError(
                f"{where} evaluates with data.eval_transforms {type(one).__name__}: only a single ResizeAndCenterCrop "
                "can be a part of an opened or exported network"
            )
    return Evaluation(next(iter(transforms), None), built.get("test_views"))


def read_data(
    config: Mapping[str, Any],
    where: str,
    home: Path,
    trained_on: TrainedOn | None,
    root: str | None = None,
    advice: str = ROOT_OR_RANDOM,
) -> ImageData:
    """The data of a run, read: the parts for training, validation and test.

    Args:
        config: the configuration of the run, as plain data that are not checked.
        where: the run or the checkpoint, for errors.
        home: see ``home_of``.
        trained_on: what the checkpoint was trained on; None for an ensemble.
        root: the folder of the data, if it is not the one in the configuration.
        advice: what to do if the folder does not exist, for the error.

    Raises:
        InputError: the configuration names no data that a file may use, or they cannot be read.
    """
    spec = config.get("data")
    if not isinstance(spec, dict) or not isinstance(spec.get("class_path"), str):
        raise InputError(f"{where} does not say which data it was trained on: export it in Python, with data=...")
    found = lookup(spec["class_path"], ImageData)
    left_out = {*LEFT_OUT, *getattr(found, "writes_to", ()), *(() if root is None else ("root",))}
    arguments = {k: v for k, v in (spec.get("init_args") or {}).items() if k not in left_out}
    spec = {"class_path": spec["class_path"], "init_args": arguments}
    refuse_untrusted({"data": spec}, {"data": ImageData}, where)
    given = arguments.get("root") if root is None else root
    missing = None
    if isinstance(given, str):
        arguments["root"] = given if root is not None else found_from(home, given)
        if not is_url(given) and not Path(arguments["root"]).exists():
            missing = InputError(f"{given}, the folder of the pictures of {where}, does not exist: {advice}")
    if missing and hasattr(found, "dataset"):  # it would be downloaded to that folder
        raise missing
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    data: ImageData = parser.instantiate_classes(parser.parse_object({"data": spec})).data
    data.trained_on = trained_on
    try:
        data.setup("test")
        if data.test is None:
            data.setup("fit")
    except InputError as error:
        raise missing or error from error
    return data
