"""Lets the user's own loggers (MLflow, W&B, CSV ...) go on where they were when a run is resumed.

The file trackers.jsonl in the run's folder holds, line by line, the version of each logger (the id of the tracker's
run) and the steps that it has logged. A resumed run logs to the same version. It repeats the steps after its
checkpoint, with the same values; a tracker gets each of them once. CSVLogger keeps its rows in memory between two
writes, so there the rows after the checkpoint are removed from the file, and written again.
"""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger

from distill_lightning.errors import InputError
from distill_lightning.lightning_internals import continue_tracker

FILE = "trackers.jsonl"
OWNER = "_distill_run"
"""The attribute of a logger that names the folder of its run."""


def attach_trackers(loggers: Sequence[Logger], folder: Path, step: int, settings: dict[str, Any]) -> None:
    """Begins to log, or goes on. Only the first process calls this.

    Args:
        loggers: the user's loggers, in the order of the configuration.
        folder: the folder of the run.
        step: the step of the checkpoint from which the run is resumed; -1 if there is none.
        settings: the options of the run, by name. A logger that begins gets them as hyperparameters.

    Raises:
        InputError: a logger belongs to another run.
    """
    for logger in loggers:
        owner = getattr(logger, OWNER, folder)
        if owner.exists() and owner.resolve() != folder.resolve():
            raise InputError(
                f"this {type(logger).__name__} belongs to the run {owner}, and would mix two runs: give each run a "
                "logger of its own"
            )
        setattr(logger, OWNER, folder)
    path = folder / FILE
    lines = _read(path)
    for number, logger in enumerate(loggers):
        name = f"{number} {type(logger).__name__}"
        mine = [line for line in lines if line.get("tracker") == name]
        version = next((line["version"] for line in mine if "version" in line), None)
        if version is not None:
            continue_tracker(logger, version)
        kept = _rows_until(Path(logger.log_dir) / "metrics.csv", step) if isinstance(logger, CSVLogger) else []
        getattr(logger, "experiment", None)  # creates the tracker's run
        if version is None:
            logger.log_hyperparams(settings)
            _append(path, {"tracker": name, "version": logger.version})
        if isinstance(logger, CSVLogger):
            logger.experiment.metrics = kept if version is not None else []
        else:
            seen = {tag: line["step"] for line in mine for tag in line.get("tags", ())}
            _log_once(logger, seen, lambda line, name=name: _append(path, {"tracker": name} | line))  # type: ignore[misc]


def _log_once(logger: Logger, seen: dict[str, int], note: Callable[[dict[str, Any]], None]) -> None:
    """Lets a logger leave out the metrics that it has logged already.

    Args:
        logger: the logger.
        seen: the last step that it has logged, by tag.
        note: writes a line about what is logged next. It comes first: after a kill between the two, a point is missing;
            otherwise it would be doubled.
    """
    log = logger.log_metrics

    def log_metrics(metrics: dict[str, float], step: int | None = None) -> None:
        new = metrics
        if step is not None:
            new = {tag: value for tag, value in metrics.items() if step > seen.get(tag, -1)}
            seen.update(dict.fromkeys(new, step))
        if new:
            note({"step": step, "tags": list(new)})
            log(new, step)

    logger.log_metrics = log_metrics  # type: ignore[method-assign]


def _rows_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The rows of CSVLogger's file up to a step, without those of a test, which is done again."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        rows = [{tag: value for tag, value in row.items() if value} for row in csv.DictReader(file)]
    return [
        row
        for row in rows
        if row.get("step", "").isdigit() and int(row["step"]) <= step and not any(t.startswith("test/") for t in row)
    ]


def _read(path: Path) -> list[dict[str, Any]]:
    """The lines of the file. A line that a kill has cut is left out."""
    lines = path.read_text().splitlines() if path.is_file() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict)]


def _append(path: Path, line: dict[str, Any]) -> None:
    with open(path, "a") as file:
        file.write("\n" + json.dumps(line))  # not at the end of a line that a kill has cut
