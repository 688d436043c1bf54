"""The options of a run that was started in Python, in the form of the command's config.yaml."""

import functools
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from torch import nn

from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method
from distill_lightning.optimizers import DEFAULT, default_optimizer
from distill_lightning.runs import RunConfig
from distill_lightning.runs.config import MADE_IN_PYTHON
from distill_lightning.runs.declared import declared
from distill_lightning.specs.describe import Description, class_path, defaults
from distill_lightning.training.lean import DEFAULTS


def options_of(
    method: Method,
    data: ImageData,
    networks: Mapping[str, functools.partial[nn.Module]],
    trainer: Mapping[str, Any],
    checkpoint: RunCheckpoint,
    seed: int,
    log_dir: str,
    name: str | None,
    start: Mapping[str, Any],
    doctor: bool = True,
) -> RunConfig:
    """Describes a run by its options, as the command does.

    Args:
        method: the method.
        data: the data.
        networks: what made each network of the method, by the name of its argument, as "network" or "peers.0".
        trainer: the options of the trainer that were given.
        checkpoint: the callback that writes the checkpoints.
        seed: the option seed_everything.
        log_dir: the option log_dir.
        name: the option name.
        start: the options start_from and start_optimizer.
        doctor: the option doctor.

    Raises:
        InputError: the class of the method or of the data cannot be imported by its name.
    """
    for part, kind in (("method", type(method)), ("data module", type(data))):
        if class_path(kind) is None:
            raise InputError(
                f"the {part} {kind.__name__} cannot be imported by name, so its run could not be opened again: define "
                "it in a file of its own"
            )
    description = Description()
    given = dict(method.given_arguments)
    for place, made_by in networks.items():
        argument, _, number = place.partition(".")
        given[argument] = made_by if not number else _replaced(given[argument], int(number), made_by)
    if method.trains and method.optimization.make is default_optimizer:
        given["optimizer"] = DEFAULT  # with its numbers, and of a class that a file may use
    model = description.spec(type(method), given, "model")
    if "model.init_args.activation" in description.unnamed:
        raise InputError("activation cannot be imported by name: give a class, or functools.partial of a class")
    options = {
        "seed_everything": seed,
        "trainer": {
            option: description.of(value, f"trainer.{option}")
            for option, value in {**defaults(pl.Trainer), **DEFAULTS, **trainer}.items()
        },
        "model": model,
        "data": description.of(data, "data"),
        "log_dir": log_dir,
        "name": name,
        **start,
        "doctor": doctor,
        "checkpoint": (description.of(checkpoint, "checkpoint") or {}).get("init_args"),
    }
    if description.unnamed:
        options[MADE_IN_PYTHON] = description.unnamed
    return RunConfig(options, declared(options))


def _replaced(values: list[Any], number: int, value: Any) -> list[Any]:
    return [*values[:number], value, *values[number + 1 :]]
