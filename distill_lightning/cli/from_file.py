"""Checks the configuration inside a checkpoint: which classes it may use, and where it may write."""

import os
import sys
from collections.abc import Collection, Mapping
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
from distill_lightning.data.evaluation_views import EvaluationViews
from distill_lightning.data.mixing import Mixing
from distill_lightning.errors import InputError
from distill_lightning.files import is_url, printable
from distill_lightning.initializers import Initializer
from distill_lightning.methods.base import Method
from distill_lightning.optimizers import DEFAULT, FineTuning, default_optimizer
from distill_lightning.preprocessing import Preprocessing
from distill_lightning.runs.config import WATCHERS
from distill_lightning.schedulers import TorchSchedule
from distill_lightning.schedules import Schedule
from distill_lightning.specs import arguments_of, lookup, offer, parameters, refuse_untrusted
from distill_lightning.specs.describe import Description, class_path

CALLBACKS = WATCHERS | {"EarlyStopping"}
"""The callbacks of Lightning that a file may use. The others write, remove or upload files, call functions, or are base
classes. A file may use none of Lightning's loggers, since they write files; every run has TensorBoard and CSV
anyway."""

offer(Method, "distill_lightning.methods")
offer(ImageData, "distill_lightning.data")
offer(Transform, "distill_lightning.data")
offer(Mixing, "distill_lightning.data")
offer(EvaluationViews, "distill_lightning.data")
offer(Preprocessing, "distill_lightning.preprocessing")
offer(Schedule, "distill_lightning.schedules")
offer(FineTuning, "distill_lightning.optimizers", itself=True)
offer(Initializer, "distill_lightning.initializers")
offer(TorchSchedule, "distill_lightning.schedulers", itself=True)
offer(PlainNetwork, "distill_lightning.checkpoints", itself=True)
offer(Callback, "distill_lightning.callbacks", package="lightning.pytorch.callbacks", names=CALLBACKS)
offer(Logger)

PARTS: dict[str, Any] = {
    "seed_everything": int | bool | None,
    "log_dir": str,
    "name": str | None,
    "start_from": str | dict[str, str | None] | None,
    "start_optimizer": bool,
    "doctor": bool,
    "weights_only": bool | None,
    "model": Method,
    "data": ImageData,
}
GROUPS = {"trainer": pl.Trainer, "checkpoint": RunCheckpoint}
"""Parts whose options are the arguments of one class."""
NARROWED: dict[str, Any] = {
    "trainer.model_registry": None,  # uploads
    "trainer.profiler": Literal["simple", "advanced"] | None,  # the others write to any path
}
"""Options for which a file may give fewer values than the user."""
FEW_PROCESSES = 16
"""The number of processes that a file may ask for on any machine. It may ask for more if there are as many cores or
GPUs."""
PROGRESS_BAR = "lightning.pytorch.callbacks.RichProgressBar"
LOOKS = ("theme", "console_kwargs")
"""Options of RichProgressBar that are left out: they hold arguments of rich, and only decide how the bar looks."""
LARGEST_PART = 300
"""Characters of a line that cannot be the name of a file, since it is longer than any system allows."""


def kinds() -> dict[str, Any]:
    """The type hint of every option that a configuration may have, by name."""
    found = dict(PARTS)
    for group, made in GROUPS.items():
        found |= {f"{group}.{name}": hint for name, hint in parameters(made).items() if name is not None}
    return found | NARROWED


def flat(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A configuration with the full names of options, as "trainer.max_epochs".

    Args:
        config: plain data.
        where: the file, for the error.

    Raises:
        InputError: a group is not a dict of options by name.
    """
    asked = {key: value for key, value in config.items() if key not in GROUPS}
    for group in GROUPS.keys() & config.keys():
        given = config[group]
        if given is not None and not (isinstance(given, dict) and all(isinstance(name, str) for name in given)):
            raise InputError(f"{where} has a {type(given).__name__} as {group}: expected options by name")
        asked |= {f"{group}.{name}": value for name, value in (given or {}).items()}
    return asked


def checked(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """Checks a configuration from a checkpoint, and removes paths that it may not write to.

    Args:
        config: plain data.
        where: the checkpoint's file.

    Returns:
        The configuration with four changes. Options that name a folder to write to are removed, unless the folder lies
        in the working folder or in the run's folder of the checkpoint, and so is a ``root`` of the data that is a URL;
        each is reported on standard error. ``num_workers`` is limited to the number of cores, or to FEW_PROCESSES if
        that is larger. LOOKS are removed.

    Raises:
        InputError: the configuration uses a class or a value that a file may not use.
    """
    config = _without_looks(_without_url(config, where))
    if _is_spec(config.get("model")):
        config = config | {"model": with_default_optimizer(config["model"])}
    asked = flat(config, str(where))
    refuse_untrusted(asked, kinds(), str(where))
    for name in ("model", "data"):
        if name in config and not _is_spec(config[name]):
            raise InputError(f"{where} has no class as {name}: it is damaged, or of another program")
    _check_values(asked, where)
    return _Paths(where).kept(config)


def with_default_optimizer(model: dict[str, Any]) -> dict[str, Any]:
    """The specification of a method whose optimizer is the default one, with that optimizer's class and numbers.

    The parser writes the name of the function that makes it, which a file may not name.

    Args:
        model: the specification, plain data.
    """
    arguments = model.get("init_args")
    if not isinstance(arguments, dict) or arguments.get("optimizer") != class_path(default_optimizer):
        return model
    return model | {"init_args": arguments | {"optimizer": Description().of(DEFAULT, "optimizer")}}


def _without_url(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """A configuration whose data have no URL as ``root``, which only the user may say again."""
    data: Any = config.get("data")
    given = {} if not _is_spec(data) else arguments_of(data) or {}
    root = given.get("root")
    if not isinstance(root, str) or not is_url(root) or not lookup(data["class_path"], ImageData).takes_urls:
        return config
    what = f"names {printable(root)} as the data's root: a file may not say what to fetch, so it is left out"
    print(f"{printable(where)} {what}: give --data.root", file=sys.stderr)
    return config | {"data": _without_arguments(data, ("root",))}


def _without_arguments(spec: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A specification without some arguments."""
    return spec | {key: {k: v for k, v in part.items() if k not in names} for key, part in _parts(spec).items()}


def _parts(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Copies of the parts of a specification that hold arguments, by their keys: the parser builds with both."""
    return {key: dict(spec[key]) for key in ("init_args", "dict_kwargs") if isinstance(spec.get(key), dict)}


def _without_looks(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose RichProgressBar has no LOOKS."""

    def plain(callback: Any) -> Any:
        is_bar = _is_spec(callback) and callback["class_path"] == PROGRESS_BAR
        return _without_arguments(callback, LOOKS) if is_bar else callback

    trainer = config.get("trainer")
    if not isinstance(trainer, dict) or not trainer.get("callbacks"):
        return config
    callbacks = trainer["callbacks"]
    kept = [plain(one) for one in callbacks] if isinstance(callbacks, list) else plain(callbacks)
    return config | {"trainer": trainer | {"callbacks": kept}}


def as_text(config: dict[str, Any]) -> str:
    """A configuration as a value of ``--config``.

    ``--config`` also takes names of files, so the text begins with a line that is too long for a name.
    """
    return "#" * LARGEST_PART + "\n" + yaml.safe_dump(config, sort_keys=False)


def _is_spec(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("class_path"), str)


def _check_values(asked: dict[str, Any], where: Path) -> None:
    """Refuses values that have the right type, but that a file may not give."""
    profiler = asked.get("trainer.profiler")
    if profiler not in (None, "simple", "advanced"):
        raise InputError(f"{where} has {profiler!r} as trainer.profiler: a file may use simple or advanced")
    devices = asked.get("trainer.devices")
    count = len(devices) if isinstance(devices, list) else _number(devices)
    if count is not None and count > max(os.cpu_count() or 1, torch.cuda.device_count(), FEW_PROCESSES):
        raise InputError(f"{where} asks for {count:,} processes, more than this machine has cores: give a --config")


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


class _Paths:
    """Removes the paths that a configuration may not write to. They are the paths outside of a few folders."""

    def __init__(self, where: Path) -> None:
        self.where = where
        run = where.resolve().parent.parent  # the path is <name>/checkpoints/<file>
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
        """A specification without the paths that its class declares in ``writes_to`` and that lie outside.

        Classes of other packages do not declare where they write, so paths outside are refused for all their options.
        """
        if not _is_spec(spec):
            raise InputError(
                f"{self.where} has {type(spec).__name__} for a {kind.__name__}: it is damaged, or of another program"
            )
        found = lookup(spec["class_path"], kind)
        parts = _parts(spec)
        for arguments in parts.values():
            self._keep_allowed(arguments, found, kind)
        return {**spec, **parts}

    def _keep_allowed(self, arguments: dict[str, Any], found: Any, kind: type) -> None:
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

    def _drop(self, options: dict[str, Any], name: str, words: str) -> None:
        if options.get(name) is not None and not self._lies_inside(options[name]):
            path = printable(options.pop(name))
            line = f"names {path} as {words}: a file may not say where to write, so it is left out"
            print(f"{printable(self.where)} {line}", file=sys.stderr)

    def _lies_inside(self, path: Any) -> bool:
        """Whether a path, in any spelling, lies in the working folder or in the run's folder, and no part of it is
        hidden.
        """
        text = str(path)
        if any(c in text for c in "$%~"):
            return False
        target = Path(text).resolve()
        for folder in self.inside:
            if target.is_relative_to(folder):
                return not any(part.startswith(".") for part in target.relative_to(folder).parts)
        return False


def _refuse_links_out_of(run: Path) -> None:
    """Refuses a run's folder with symbolic links out of it, through which a run would write elsewhere.

    Raises:
        InputError: there is such a link. The message names it.
    """
    for path in run.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(run):
            raise InputError(f"{path} is a link that leads out of the run's folder: replace it by what it points to")


def _is_there(data: Any, root: Any) -> bool:
    """Whether a data set that would be downloaded is on disk already."""
    names = {"train", data.__name__.lower(), data.dataset.__name__, getattr(data.dataset, "base_folder", "train")}
    return root is not None and any((Path(str(root)) / name).exists() for name in names)


def _is_path(text: str) -> bool:
    path = Path(text)
    return text.startswith(("/", "~", "\\")) or ".." in path.parts or bool(path.anchor) or any(c in text for c in "$%")
