"""What is known of a run without reading its checkpoints."""

import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from distill_lightning.errors import InputError
from distill_lightning.report.records import LARGEST_METRICS_BYTES, Record, as_number
from distill_lightning.runs import Run, RunConfig, flatten
from distill_lightning.runs.config import CONFIG

State = Literal["running", "finished", "interrupted", "failed", "damaged"]
STATES: tuple[State, ...] = ("running", "finished", "interrupted", "failed", "damaged")
"""The states of a run.

running      A live process has locked the folder.
finished     The folder has a summary.json.
interrupted  The run ended before its summary, and has a checkpoint to go on from.
failed       The run ended before its first checkpoint.
damaged      A file of the run cannot be read.
"""
FRESH_S = 300
"""A run without a lock may be running on another machine if it wrote a file in the last so many seconds."""
LAST_BYTES = 1 << 16
"""How much of the end of metrics.csv is searched for the last values."""
END_OF_EPOCH = "train/epoch_loss"
"""The tag that each epoch logs once, at its end."""


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run.

    Args:
        folder: the run's folder.
        state: see ``STATES``.
        data_set: the name of the data set, as in the path logs/<data set>/<method>/<name>.
        method: the name of the method, as in the path.
        method_class: the name of the method's class; None for a damaged run.
        network: the name of the network's class, if the method has one.
        seed: the option ``seed_everything``.
        metrics: the last value of each metric of validation and test, by tag. Accuracies are fractions of 1.
        epochs: how many epochs have ended; None for a method that does not train.
        max_epochs: how many epochs were asked for; None if another option decides the length.
        steps: the last optimizer step that is known.
        wall_time_s: the training time of a finished run in seconds, over all its starts.
        elapsed_s: for a run that is not finished: the seconds between its start and the last time that it wrote a
            file, with interruptions.
        started: the local time of the first start.
        settings: the options that can change the result, by short full name: "model.optimizer.lr".
        options: all options in the same form.
        note: why the run is damaged, or why the state is not certain; or nothing.
    """

    folder: Path
    state: State
    data_set: str
    method: str
    method_class: str | None = None
    network: str | None = None
    seed: Any = None
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: int | None = None
    max_epochs: int | None = None
    steps: int | None = None
    wall_time_s: float | None = None
    elapsed_s: float | None = None
    started: datetime | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.absolute().name

    @property
    def accuracy(self) -> tuple[str, float] | None:
        """The accuracy on the test split, or else the last one on the validation split, after the name of the split:
        ("test", 0.97).
        """
        found = ((part, self.metrics.get(f"{part}/accuracy")) for part in ("test", "val"))
        return next(((part, value) for part, value in found if value is not None), None)


def read(folder: Path) -> RunInfo:
    """Reads what is known of the run in a folder. A run that cannot be read has the state "damaged"."""
    try:
        return _read(folder)
    except (InputError, OSError) as error:
        above = folder.absolute().parent
        return RunInfo(folder, "damaged", above.parent.name, above.name, note=" ".join(str(error).split()))


def _read(folder: Path) -> RunInfo:
    """As ``read``, but raises InputError or OSError for a run that cannot be read."""
    if not (folder / CONFIG).is_file():  # a pipe could be read for ever
        raise InputError(f"there is no file {folder / CONFIG}")
    record, above = Record(folder), folder.absolute().parent
    config, summary = record.run_config, record.summary
    logged = {} if summary else _last_values(folder / "metrics.csv")
    path = str(config.options["model"].get("class_path") or "?")
    module, _, method_class = path.rpartition(".")
    data_set, method = above.parent.name, above.name
    settings = config.settings()
    if method != module.rpartition(".")[2]:  # the folder was moved or copied
        data_set, method = str(settings.get("data", "?")).lower(), module.rpartition(".")[2] or path
    numbers = summary.get("metrics", {}) if summary else logged
    values = {tag: as_number(value) for tag, value in numbers.items() if tag.partition("/")[0] in ("val", "test")}
    state, written, note = _state(folder)
    started = (folder / CONFIG).stat().st_mtime
    return RunInfo(
        folder=folder,
        state=state,
        data_set=data_set,
        method=method,
        method_class=method_class,
        network=None if (network := settings.get("model.network")) is None else str(network),
        seed=config.seed,
        metrics={tag: value for tag, value in values.items() if value is not None},
        epochs=_whole(summary.get("epochs")) if summary else _whole(logged.get(_EPOCHS)),
        max_epochs=_max_epochs(config),
        steps=_whole(summary.get("steps")) if summary else _whole(logged.get(_STEP)),
        wall_time_s=as_number(summary.get("wall_time_s")),
        elapsed_s=None if summary else max(0.0, written - started),
        started=_local_time(started),
        settings=settings,
        options={key.replace(".init_args", ""): value for key, value in flatten(config.options).items()},
        note=note,
    )


def _local_time(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds).astimezone()
    except (ValueError, OverflowError, OSError):  # archives can hold files of any year
        return None


_EPOCHS, _STEP = " epochs", " step"  # beside the tags, which have no space


def _last_values(path: Path) -> dict[str, float]:
    """The last value of each tag near the end of metrics.csv, the number of ended epochs, and the last step.

    Raises:
        InputError: the file is too large, or its last lines are not those of a metrics.csv.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        return {}
    if (size := path.stat().st_size) > LARGEST_METRICS_BYTES:
        raise InputError(f"{path} has {size:,} bytes, expected at most {LARGEST_METRICS_BYTES:,}: it is not read")
    content = path.read_bytes()
    lines = content[-LAST_BYTES:].decode(errors="replace").split("\n")[1:-1]  # the first and the last may be torn
    found: dict[str, float] = {}
    for line in lines:
        step, _, rest = line.partition(",")
        tag, _, value = rest.rpartition(",")
        if tag == "tag":
            continue
        try:
            found |= {tag: float(value), _STEP: float(int(step))}
        except (ValueError, OverflowError) as error:
            raise InputError(f"{path} is damaged: expected a step, a tag and a value, got {line[:60]}") from error
    if epochs := content.count(f",{END_OF_EPOCH},".encode()):
        found[_EPOCHS] = epochs
    return found


def _state(folder: Path) -> tuple[State, float, str]:
    """The state of a run, the time of its last written file, and a note if the state is not certain.

    On a disk that several machines share, the lock of another machine is seen on most file systems (NFS 4, Lustre with
    ``flock``), but not on all.
    """
    run = Run(folder)
    last = run.checkpoints / "last.ckpt"
    written = max(path.stat().st_mtime for path in (folder / CONFIG, run.metrics, last) if path.is_file())
    if run.summary.is_file():
        return "finished", written, ""
    locked = run.locked()
    age = time.time() - written
    if locked:
        return "running", written, ""
    ended: State = "interrupted" if last.is_file() else "failed"
    if age > FRESH_S:
        return ended, written, ""
    if locked is None:
        return "running", written, f"its lock cannot be read, but it wrote a file {max(0, age):.0f} s ago"
    return ended, written, f"it wrote a file {max(0, age):.0f} s ago: it may be running on another machine"


def _max_epochs(config: RunConfig) -> int | None:
    trainer = config.options.get("trainer") or {}
    callbacks = trainer.get("callbacks") or []
    if any(str(one.get("class_path")).endswith(".Lottery") for one in callbacks if isinstance(one, dict)):
        return None  # max_epochs is then the length of a round
    return _whole(trainer.get("max_epochs"))


def _whole(value: Any) -> int | None:
    number = as_number(value)
    return int(number) if number is not None and 0 <= number < 2**63 else None
