"""The configuration that a checkpoint brings along: what it may ask for, and where it may write."""

import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.augment import Transform
from distill_lightning.data.base import ImageData
from distill_lightning.data.mixing import Mixing
from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method
from distill_lightning.schedules import Schedule
from distill_lightning.specs import lookup, offer, parameters, refuse_untrusted

offer(Method, "distill_lightning.methods")
offer(ImageData, "distill_lightning.data")
offer(Transform, "distill_lightning.data")
offer(Mixing, "distill_lightning.data")
offer(Schedule, "distill_lightning.schedules")
offer(PlainNetwork, "distill_lightning.checkpoints")
offer(Callback, "distill_lightning.callbacks", lightning="lightning.pytorch.callbacks")
offer(Logger, lightning="lightning.pytorch.loggers")

PARTS: dict[str, Any] = {
    "seed_everything": int | bool | None,
    "log_dir": str,
    "name": str | None,
    "weights_only": bool | None,
    "model": Method,
    "data": ImageData,
}
GROUPS = {"trainer": pl.Trainer, "checkpoint": RunCheckpoint}
"""Parts whose options are the arguments of one class."""


def checked(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """A configuration from a checkpoint, as far as it may be used.

    Args:
        config: plain data.
        where: the checkpoint.

    Returns:
        The same, without the paths that it would write to elsewhere than in the working folder or in the log folder that
        the checkpoint lies in; each is named on standard error.

    Raises:
        InputError: it asks for what may not be built from a file.
    """
    asked = {key: value for key, value in config.items() if key not in GROUPS}
    kinds: dict[str, Any] = dict(PARTS)
    for group, made in GROUPS.items():
        hints = parameters(made)
        given = config.get(group) or {}
        if not isinstance(given, dict):
            raise InputError(f"{where} has {given!r} as {group}: expected options by name")
        asked |= {f"{group}.{name}": value for name, value in given.items()}
        kinds |= {f"{group}.{name}": hint for name, hint in hints.items() if name is not None}
    refuse_untrusted(asked, kinds, str(where))
    return _without_paths_outside(config, where)


def _without_paths_outside(config: dict[str, Any], where: Path) -> dict[str, Any]:
    inside = [Path.cwd(), *where.resolve().parents[4:5]]  # logs/<data set>/<method>/<name>/checkpoints/<file>

    def lies_inside(path: Any) -> bool:
        target = Path(str(path)).expanduser().resolve()
        return any(target.is_relative_to(folder) for folder in inside)

    def dropped(name: str, path: Any) -> None:
        print(f"{where} names {path} as {name}: a file may not say where to write, so it is left out", file=sys.stderr)

    kept = dict(config)
    if kept.get("log_dir") is not None and not lies_inside(kept["log_dir"]):
        dropped("log_dir", kept.pop("log_dir"))
    trainer = dict(kept.get("trainer") or {})
    if trainer.get("default_root_dir") is not None and not lies_inside(trainer["default_root_dir"]):
        dropped("trainer.default_root_dir", trainer.pop("default_root_dir"))
    given = trainer.get("callbacks")
    if given:
        listed = given if isinstance(given, list) else [given]
        trainer["callbacks"] = [_callback(c, Callback, lies_inside, dropped, where) for c in listed]
    loggers = trainer.get("logger")
    for logger in loggers if isinstance(loggers, list) else [loggers] if isinstance(loggers, dict) else []:
        _callback(logger, Logger, lies_inside, dropped, where)
    if "trainer" in kept:
        kept["trainer"] = trainer
    if isinstance(kept.get("data"), dict):
        kept["data"] = _callback(kept["data"], ImageData, lies_inside, dropped, where)
    return kept


def _callback(spec: dict[str, Any], kind: type, lies_inside: Any, dropped: Any, where: Path) -> dict[str, Any]:
    """A specification without the paths that its class declares to write to; of Lightning's classes no path is known."""
    found = lookup(spec["class_path"], kind)
    arguments = dict(spec.get("init_args") or {})
    for name, value in list(arguments.items()):
        if not isinstance(value, str):
            continue
        if name in getattr(found, "writes_to", ()):
            if not lies_inside(value):
                dropped(name, arguments.pop(name))
        elif found.__module__.startswith("lightning.") and ("://" in value or (_is_path(value) and not lies_inside(value))):
            raise InputError(
                f"{where} names {value} as {name} of {found.__name__}: a file may not say where to write; "
                "give a --config instead"
            )
    return {**spec, "init_args": arguments}


def _is_path(text: str) -> bool:
    return text.startswith(("/", "~", "\\")) or ".." in Path(text).parts
