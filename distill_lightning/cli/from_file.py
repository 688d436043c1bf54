"""The configuration that a checkpoint brings along: what it may ask for, and where it may write."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.augment import Transform
from distill_lightning.data.base import ImageData
from distill_lightning.data.mixing import Mixing
from distill_lightning.errors import InputError
from distill_lightning.files import printable
from distill_lightning.methods.base import Method
from distill_lightning.schedules import Schedule
from distill_lightning.specs import lookup, offer, parameters, refuse_untrusted

CALLBACKS = {
    "DeviceStatsMonitor", "EMAWeightAveraging", "EarlyStopping", "GradientAccumulationScheduler", "LearningRateMonitor",
    "ModelSummary", "RichModelSummary", "RichProgressBar", "StochasticWeightAveraging", "TQDMProgressBar",
    "ThroughputMonitor", "Timer", "WeightAveraging",
}  # fmt: skip
"""Those of Lightning's that a file may ask for. The others write, remove or upload files, call functions, or are bases
to build on. So do its loggers, none of which is here: TensorBoard and CSV are in every run anyway."""

offer(Method, "distill_lightning.methods")
offer(ImageData, "distill_lightning.data")
offer(Transform, "distill_lightning.data")
offer(Mixing, "distill_lightning.data")
offer(Schedule, "distill_lightning.schedules")
offer(PlainNetwork, "distill_lightning.checkpoints", itself=True)
offer(Callback, "distill_lightning.callbacks", package="lightning.pytorch.callbacks", names=CALLBACKS)
offer(Logger)

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
NARROWED: dict[str, Any] = {
    "trainer.model_registry": None,  # uploads
    "trainer.profiler": Literal["simple", "advanced"] | None,  # the others write where they like
}
"""Options that a file may use less freely than the user."""
FEW_PROCESSES = 16
"""A file may ask for so many anywhere, for more where there are processors or GPUs for them."""
LARGEST_PART = 300
"""Characters of a line that no file's name has: more than a name may have on any system."""


def kinds() -> dict[str, Any]:
    """The type hint of every option that a configuration has."""
    found = dict(PARTS)
    for group, made in GROUPS.items():
        found |= {f"{group}.{name}": hint for name, hint in parameters(made).items() if name is not None}
    return found | NARROWED


def flat(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A configuration with the options of its groups by their full names.

    Raises:
        InputError: a group is something else than options by name.
    """
    asked = {key: value for key, value in config.items() if key not in GROUPS}
    for group in GROUPS.keys() & config.keys():
        given = config[group]
        if given is not None and not (isinstance(given, dict) and all(isinstance(name, str) for name in given)):
            raise InputError(f"{where} has a {type(given).__name__} as {group}: expected options by name")
        asked |= {f"{group}.{name}": value for name, value in (given or {}).items()}
    return asked


def checked(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """A configuration from a checkpoint, as far as it may be used.

    Args:
        config: plain data.
        where: the checkpoint.

    Returns:
        The same, without the paths that it would write to elsewhere than in the working folder or in the run's folder
        that the checkpoint lies in; each is named on standard error. Pictures are decoded by no more processes than this
        machine has processors, or FEW_PROCESSES.

    Raises:
        InputError: it asks for what may not be built from a file.
    """
    asked = flat(config, str(where))
    refuse_untrusted(asked, kinds(), str(where))
    for name in ("model", "data"):
        if name in config and not _is_spec(config[name]):
            raise InputError(f"{where} has no class as {name}: it is damaged, or not ours")
    _check_values(asked, where)
    return _Paths(where).kept(config)


def as_text(config: dict[str, Any]) -> str:
    """A configuration as the value of ``--config``, which takes the name of a file as well: it begins with a line that no
    file's name has."""
    return "#" * LARGEST_PART + "\n" + yaml.safe_dump(config, sort_keys=False)


def _is_spec(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("class_path"), str)


def _check_values(asked: dict[str, Any], where: Path) -> None:
    """Refuses what is of the right type, and still no value that a file may give."""
    profiler = asked.get("trainer.profiler")
    if profiler not in (None, "simple", "advanced"):
        raise InputError(f"{where} has {profiler!r} as trainer.profiler: a file may ask for simple or advanced")
    devices = asked.get("trainer.devices")
    count = len(devices) if isinstance(devices, list) else _number(devices)
    if count is not None and count > max(os.cpu_count() or 1, torch.cuda.device_count(), FEW_PROCESSES):
        raise InputError(f"{where} asks for {count:,} processes, more than this machine is for: give a --config")


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


class _Paths:
    """What a configuration says of where to write, and which of it is left out."""

    def __init__(self, where: Path) -> None:
        self.where = where
        run = where.resolve().parent.parent  # <name>/checkpoints/<file>
        self.inside = [Path.cwd()]
        if (run / "config.yaml").is_file():
            self.inside.append(run)
            _refuse_links_out_of(run)

    def kept(self, config: dict[str, Any]) -> dict[str, Any]:
        kept = dict(config)
        self._drop(kept, "log_dir", "log_dir")
        if isinstance(kept.get("trainer"), dict):
            trainer = kept["trainer"] = dict(kept["trainer"])
            self._drop(trainer, "default_root_dir", "trainer.default_root_dir")
            for name, kind in (("callbacks", Callback), ("logger", Logger)):
                given = trainer.get(name)
                if isinstance(given, list):
                    trainer[name] = [self._spec(one, kind) for one in given]
                elif isinstance(given, dict):
                    trainer[name] = self._spec(given, kind)
        if "data" in kept:
            kept["data"] = self._spec(kept["data"], ImageData)
        return kept

    def _spec(self, spec: Any, kind: type) -> dict[str, Any]:
        """A specification without the paths that its class declares to write to; of others' classes no path is known."""
        if not _is_spec(spec):
            raise InputError(
                f"{self.where} has {type(spec).__name__} for a {kind.__name__}: it is damaged, or not ours"
            )
        found = lookup(spec["class_path"], kind)
        arguments = dict(spec.get("init_args") or {})
        for name in getattr(found, "writes_to", ()):
            self._drop(arguments, name, f"{name} of {found.__name__}")
        if hasattr(found, "dataset") and not _is_there(found, arguments.get("root")):
            self._drop(arguments, "root", f"root of {found.__name__}, to download to")
        if isinstance(arguments.get("num_workers"), int):
            arguments["num_workers"] = min(arguments["num_workers"], max(os.cpu_count() or 1, FEW_PROCESSES))
        theirs = not getattr(found, "__module__", "").startswith("distill_lightning.")
        for name, value in arguments.items():
            if theirs and isinstance(value, str) and _is_path(value) and not self._lies_inside(value):
                raise InputError(
                    f"{self.where} names {value} as {name} of {getattr(found, '__name__', kind.__name__)}: "
                    "a file may not say where to write; give a --config instead"
                )
        return {**spec, "init_args": arguments}

    def _drop(self, options: dict[str, Any], name: str, words: str) -> None:
        if options.get(name) is not None and not self._lies_inside(options[name]):
            path = printable(options.pop(name))
            line = f"names {path} as {words}: a file may not say where to write, so it is left out"
            print(f"{printable(self.where)} {line}", file=sys.stderr)

    def _lies_inside(self, path: Any) -> bool:
        """Whether it is a visible place in the working folder or in the run's folder, whatever it is written like."""
        text = str(path)
        if any(c in text for c in "$%~"):
            return False
        target = Path(text).resolve()
        for folder in self.inside:
            if target.is_relative_to(folder):
                return not any(part.startswith(".") for part in target.relative_to(folder).parts)
        return False


def _refuse_links_out_of(run: Path) -> None:
    """Refuses a run's folder in which a name stands for something elsewhere, which a run would write to.

    Raises:
        InputError: naming the link.
    """
    for path in run.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(run):
            raise InputError(f"{path} is a link that leads out of the run's folder: replace it by what it stands for")


def _is_there(data: Any, root: Any) -> bool:
    """Whether a data set that is downloaded where it is missing is there."""
    names = {"train", data.__name__.lower(), data.dataset.__name__, getattr(data.dataset, "base_folder", "train")}
    return root is not None and any((Path(str(root)) / name).exists() for name in names)


def _is_path(text: str) -> bool:
    path = Path(text)
    return text.startswith(("/", "~", "\\")) or ".." in path.parts or bool(path.anchor) or any(c in text for c in "$%")
