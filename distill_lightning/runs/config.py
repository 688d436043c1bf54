"""The configuration of a run: its options, and which of them can change its result."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from distill_lightning.errors import InputError
from distill_lightning.files import read_json, read_yaml

CONFIG, IDENTITY = "config.yaml", "identity.json"
FORMAT = 2
"""The version of the format of identity.json."""

RESULT_OPTIONS_OF_TRAINER = {
    "max_epochs", "max_steps", "min_epochs", "min_steps", "precision", "accumulate_grad_batches",
    "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches", "overfit_batches", "deterministic",
    "sync_batchnorm", "fast_dev_run", "callbacks", "reload_dataloaders_every_n_epochs", "limit_val_batches",
    "limit_test_batches", "plugins",
}  # fmt: skip
"""Options of the trainer that can change the result. The others decide paths, logging, progress, devices and checks."""
VALIDATION_OPTIONS = ("check_val_every_n_epoch", "val_check_interval")
"""Options of the trainer that decide which weights best.ckpt and rounds/round_NN.ckpt hold."""
WATCHERS = {
    "DeviceStatsMonitor", "LearningRateMonitor", "ModelSummary", "RichModelSummary", "RichProgressBar",
    "ThroughputMonitor", "TQDMProgressBar",
}  # fmt: skip
"""Lightning's callbacks that only show or log something. A run may be resumed with or without them."""
OF_CALLBACK = re.compile(r"(?P<place>(made_in_python\.)?trainer\.callbacks\.)(?P<number>\d+)?")
"""The full name of an option of a callback; without a number if there is one callback, not in a list."""
BEST_OPTIONS = ("monitor", "lowest_is_best")
"""Options of the callback RunCheckpoint that decide which weights best.ckpt holds."""
SHAPE = ("num_classes", "in_channels", "image_size")
"""Options of a network that the data decide."""

FREE_IN_VERSION_0_1 = {"root", "num_workers", "pictures", "eval_batch_size", "cache", "folder"}
"""Names of options that version 0.1 took not to change the result, in every class."""

MADE_IN_PYTHON = "made_in_python"
"""The option that names the objects that config.yaml cannot describe, since they were made in Python: their classes, by
their places."""

DEEPEST = 50
"""The largest number of levels in a configuration."""

OfRun = Callable[[Path], str | None]
"""Gives the identity of the run in a folder, or None if there is no run. See ``identity``."""


@dataclass(frozen=True)
class Declared:
    """What the classes of a configuration declare about their options.

    Args:
        free: full names of options that cannot change the result, such as "data.init_args.num_workers".
        pictures: the folder of the pictures that the run uses; None for a data set that is the same on every machine.
        validation_decides: whether the weights that the run keeps depend on the times of validation.
    """

    free: frozenset[str] = frozenset()
    pictures: str | None = None
    validation_decides: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for identity.json."""
        return {
            "free": sorted(self.free),
            "pictures": self.pictures,
            "validation_decides": self.validation_decides,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Declared":
        """Reads what ``as_dict`` has written."""
        pictures = content.get("pictures")
        free = frozenset(map(str, content.get("free") or []))
        return cls(free, None if pictures is None else str(pictures), bool(content.get("validation_decides")))

    @classmethod
    def in_version_0_1(cls, options: Mapping[str, Any]) -> "Declared":
        """For a run folder without identity.json. Version 0.1 decided by the last part of an option's name."""
        free = {key for key in flatten(dict(options)) if key.rpartition(".")[2] in FREE_IN_VERSION_0_1}
        data = options.get("data") or {}
        path, root = str(data.get("class_path")), (data.get("init_args") or {}).get("root")
        known = path.startswith("distill_lightning.data.") and not path.endswith(".ImageFolder")
        callbacks = (options.get("trainer") or {}).get("callbacks") or []
        rounds = any(str(c.get("class_path")).endswith(".Lottery") for c in callbacks if isinstance(c, dict))
        return cls(frozenset(free), None if known or not root else str(Path(root).resolve()), rounds)


@dataclass(frozen=True)
class RunConfig:
    """The resolved options of a run.

    Args:
        options: plain data, as in config.yaml.
        declared: what the classes in it declare.
    """

    options: dict[str, Any]
    declared: Declared = field(default_factory=Declared)

    @classmethod
    def read(cls, folder: Path) -> "RunConfig":
        """Reads the configuration of the run in a folder.

        Raises:
            InputError: the files are no configuration of a run, or have the format of a later version.
            OSError: the files cannot be read.
        """
        options = read_yaml(folder / CONFIG)
        if not _is_config(options):
            raise InputError(f"{folder / CONFIG} is no configuration of a run: give a folder that `distill fit` wrote")
        if not (folder / IDENTITY).is_file():
            return cls(options, Declared.in_version_0_1(options))
        content = read_json(folder / IDENTITY)
        if not isinstance(content.get("format"), int) or content["format"] > FORMAT:
            raise InputError(
                f"{folder / IDENTITY} has the format {content.get('format')}, this version reads up to {FORMAT}: "
                "use a later version"
            )
        return cls(options, Declared.from_dict(content))

    def files(self) -> dict[str, str]:
        """The texts of config.yaml and identity.json."""
        identity = {"format": FORMAT, "id": self.id()} | self.declared.as_dict()
        return {CONFIG: dump(self.options), IDENTITY: json.dumps(identity, indent=2) + "\n"}

    def with_options(self, **changed: Any) -> "RunConfig":
        """A copy with other values for some top-level options."""
        return replace(self, options=self.options | changed)

    def replaced(self, options: dict[str, Any]) -> "RunConfig":
        """A copy with other options, and the same declarations of classes."""
        return replace(self, options=options)

    @property
    def seed(self) -> Any:
        """The seed of the run."""
        return self.options.get("seed_everything")

    @cached_property
    def result_options(self) -> dict[str, Any]:
        """The options that can change the result, by full name."""
        names = RESULT_OPTIONS_OF_TRAINER | set(VALIDATION_OPTIONS if self.declared.validation_decides else ())
        trainer = {k: v for k, v in (self.options.get("trainer") or {}).items() if k in names}
        parts = {k: self.options.get(k) for k in ("seed_everything", "model", "data")} | {"trainer": trainer}
        if self.start_from is not None:
            parts |= {"start_from": self.start_from, "start_optimizer": self.options.get("start_optimizer")}
        if made := self.options.get(MADE_IN_PYTHON):
            parts[MADE_IN_PYTHON] = made
        matters = {k: v for k, v in flatten(parts).items() if k not in self.declared.free}
        return _without_watchers(matters, trainer.get("callbacks"))

    @property
    def flat_options(self) -> dict[str, Any]:
        """All options by full name, with the callbacks numbered as in ``result_options``."""
        return _without_watchers(flatten(self.options), (self.options.get("trainer") or {}).get("callbacks"))

    @property
    def lineage(self) -> dict[str, Any]:
        """What the run started from: ``path``, ``weights`` (their digest) and ``run`` (the identity of the finished run
        and the name of the checkpoint, or None). Empty before the run was started, and if it starts from nothing.
        """
        given = self.options.get("start_from")
        return given if isinstance(given, dict) else {}

    @property
    def start_from(self) -> str | None:
        """The path that the run starts from, as it was given; None if it starts from nothing."""
        given = self.options.get("start_from")
        path = self.lineage.get("path") if isinstance(given, dict) else given
        return None if path is None else str(path)

    @property
    def pictures(self) -> dict[str, str]:
        """The folder of the run's pictures, as an option by name; empty if no folder decides the pictures."""
        return {} if self.declared.pictures is None else {"data.root": self.declared.pictures}

    def id(self, of_run: OfRun | None = None) -> str:
        """A digest of the options that can change the result.

        Runs that must give the same result have the same id, in whatever folders they and their teachers lie. A folder
        of pictures counts by its path; its content is not read.

        Args:
            of_run: gives the identity of the run that a checkpoint in the options belongs to, from the run's folder. By
                default the identity is read from the folder.
        """
        known = of_run or identity
        matters = {key: by_run(value, known) for key, value in self.result_options.items()} | self.pictures
        if self.start_from is not None:
            origin = self.lineage.get("run") or self.lineage.get("weights")
            matters["start_from"] = origin or by_run(str(file_to_start_from(self.start_from)), known)
        for part, names in (("checkpoint", BEST_OPTIONS), ("trainer", VALIDATION_OPTIONS)):
            matters |= {f"{part}.{name}": (self.options.get(part) or {}).get(name) for name in names}
        # options that are not set do not count, so that the id stays the same when a later version adds an option
        matters = {key: value for key, value in matters.items() if value not in (None, [], {})}
        return hashlib.sha256(json.dumps(matters, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def settings(self) -> dict[str, Any]:
        """The options that can change the result, by short name, as tables show them.

        For example, "model" is "DLB" and "model.optimizer.lr" is 0.1. Options that are not set are left out.
        """

        def short(key: str) -> str:
            return key.replace(".init_args", "").removesuffix(".class_path")

        matters = {k: v for k, v in self.result_options.items() if v not in (None, [], {})} | self.pictures
        return {short(k): v.rpartition(".")[2] if k.endswith(".class_path") else v for k, v in matters.items()}


def _is_config(config: Any) -> bool:
    """Whether plain data has the parts of a run's configuration, each of the right type."""
    if not isinstance(config, dict) or not {"model", "data"} <= config.keys():
        return False
    parts = [config.get(part, {}) for part in ("model", "data", "trainer", "checkpoint")]
    if not all(isinstance(part, dict) for part in parts):
        return False
    model, data, trainer, _ = parts
    arguments = [part.get("init_args", {}) for part in (model, data)]
    callbacks = trainer.get("callbacks") or []
    return (
        all(isinstance(given, dict) for given in arguments)
        and isinstance(config.get("start_from"), str | dict | None)
        and isinstance(root := arguments[1].get("root") or "", str)
        and "\0" not in root
        and isinstance(callbacks, list | dict)
        and isinstance(config.get("seed_everything"), int | float | str | None)
        and _is_plain(config, DEEPEST)
    )


def _is_plain(value: Any, levels: int) -> bool:
    """Whether a value is plain data with at most ``levels`` levels, integers of at most 64 bits, and text as class
    paths.
    """
    if isinstance(value, int):
        return value.bit_length() <= 64
    if not isinstance(value, dict | list):
        return not isinstance(value, tuple | set)
    if levels == 0:
        return False
    if isinstance(value, dict):
        for key, part in value.items():
            if not _is_plain(key, 0) or (str(key).endswith("class_path") and not isinstance(part, str | None)):
                return False
    return all(_is_plain(part, levels - 1) for part in (value.values() if isinstance(value, dict) else value))


def by_run(value: Any, of_run: OfRun) -> Any:
    """Replaces the path of a checkpoint or a ticket by the identity of its run and the name of the file.

    Args:
        value: the value of an option. A value that is no such path is returned as it is.
        of_run: gives the identity of the run in a folder.
    """
    if isinstance(value, str) and value.endswith((".ckpt", "ticket.pt")):
        path = Path(value)
        folder = path.parent if path.name == "ticket.pt" else path.parent.parent
        return f"{known}/{path.name}" if (known := of_run(folder)) else value
    # os.path: a text that is no path at all is no file either
    if isinstance(value, str) and value and os.path.isfile(os.path.join(value, "checkpoints", "last.ckpt")):
        return f"{known}/last.ckpt" if (known := of_run(Path(value))) else value  # the folder of a run stands for it
    return value


def file_to_start_from(path: str) -> Path:
    """The file that a run starts from: the last checkpoint of a run, if ``path`` is the folder of a run."""
    folder = Path(path)
    return folder / "checkpoints" / "last.ckpt" if (folder / CONFIG).is_file() else folder


def identity(folder: Path) -> str | None:
    """The identity of the run in a folder: the name of its data set and its id; None if there is no run."""
    return named(folder, RunConfig.read(folder).id()) if (folder / CONFIG).is_file() else None


def named(folder: Path, run_id: str) -> str:
    """The identity of a run: the name of its data set and its id, as "mnist/0123456789abcdef".

    The options need not contain the name of the data set, so it is taken from the path.

    Args:
        folder: logs/<data set>/<method>/<name>.
        run_id: the id of the run's configuration.
    """
    return f"{folder.absolute().parent.parent.name}/{run_id}"


def flatten(options: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as {"a.b.0": value}."""
    items = options.items() if isinstance(options, dict) else enumerate(options) if isinstance(options, list) else None
    if items is None or not options:
        return {prefix: options}
    return {k: v for key, value in items for k, v in flatten(value, f"{prefix}.{key}" if prefix else str(key)).items()}


def _without_watchers(flat: Mapping[str, Any], callbacks: Any) -> dict[str, Any]:
    """Options by full name without those of the callbacks that only watch (``WATCHERS``). The others are numbered as if
    these were not there.

    Args:
        flat: the options, with the numbers that the callbacks have among all.
        callbacks: the option trainer.callbacks.
    """
    every = callbacks if isinstance(callbacks, list) else [callbacks]
    watches = [isinstance(one, dict) and _watches(str(one.get("class_path"))) for one in every]
    kept: dict[str, Any] = {}
    for key, value in flat.items():
        found = OF_CALLBACK.match(key)
        if found is None:
            kept[key] = value
            continue
        place, number = found["place"], int(found["number"] or 0)
        if not (number < len(watches) and watches[number]):
            before = sum(watches[:number])
            kept[f"{place}{number - before}{key[found.end() :]}" if found["number"] else key] = value
    return kept


def _watches(class_path: str) -> bool:
    return class_path.startswith("lightning.pytorch.callbacks.") and class_path.rpartition(".")[2] in WATCHERS


def dump(options: dict[str, Any]) -> str:
    """YAML with the options in their order."""
    return yaml.safe_dump(options, sort_keys=False, allow_unicode=True)
