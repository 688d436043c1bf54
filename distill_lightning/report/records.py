"""Reads the files of runs.

Another person may have made the files, so they are read as plain data. A config.yaml that does not belong to a run is
skipped. If any other file is damaged, an error names it.
"""

import csv
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill_lightning.errors import InputError
from distill_lightning.runs import RunConfig, read_metrics
from distill_lightning.runs.summary import read_confusion

LARGEST_SUMMARY_BYTES = 2**26
LARGEST_METRICS_BYTES = 2**28
LARGEST_PICTURE_BYTES = 2**22
LARGEST_STEP = 2**63
PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of each PNG."""
LONGEST_REASON = 200


@dataclass(eq=False)
class Record:
    """The files of a run. Each is read when it is needed."""

    folder: Path

    @cached_property
    def run_config(self) -> RunConfig:
        """The resolved configuration. Check with `is_run` first that the folder is a run's."""
        return RunConfig.read(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        """The options as plain data."""
        return self.run_config.options

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json; empty for a run that is not finished.

        Raises:
            InputError: the file is damaged.
        """
        path = self.folder / "summary.json"
        return _read_summary(path) if path.is_file() else {}

    @cached_property
    def series(self) -> dict[str, list[tuple[float, float]]]:
        """The points (step, value) in metrics.csv, by tag; empty if there is no such file.

        Raises:
            InputError: the file is damaged.
        """
        path = self.folder / "metrics.csv"
        if not path.is_file():
            return {}
        _check_size(path, LARGEST_METRICS_BYTES)
        found: dict[str, list[tuple[float, float]]] = {}
        try:
            for step, tag, value in read_metrics(path):
                if abs(step) > LARGEST_STEP:
                    raise ValueError(f"the step {step:.3e} is too large")
                found.setdefault(tag, []).append((step, value))
        except (ValueError, csv.Error, OverflowError) as error:
            raise _damaged(path, f"expected rows of step, tag and value: {error}") from error
        return found

    @cached_property
    def confusion(self) -> tuple[list[str], list[list[int]]]:
        """The names of the K classes, and K rows of K counts of test pictures; both are empty if there are none.

        Raises:
            InputError: the file is damaged.
        """
        return read_confusion(self.folder)

    @property
    def preprocessing(self) -> bytes | None:
        """The picture of its preprocessing, a PNG; None if the run has none.

        Raises:
            InputError: the file is too large, or is no PNG.
        """
        path = self.folder / "preprocessing.png"
        if not path.is_file():
            return None
        _check_size(path, LARGEST_PICTURE_BYTES)
        content = path.read_bytes()
        if not content.startswith(PNG):
            raise _damaged(path, "expected a PNG")
        return content

    @property
    def is_trial(self) -> bool:
        """Whether the run was made with ``fast_dev_run``: a few batches, to see whether the program works."""
        return bool((self.config.get("trainer") or {}).get("fast_dev_run"))

    @property
    def data_set(self) -> str:
        """The name of the data set.

        A run's folder is logs/<data set>/<method>/<name>. For a folder that was moved elsewhere, the name is that of
        the data's class.
        """
        folder, method = self.folder.absolute(), str(self.config["model"].get("class_path")).split(".")
        if method[-2:-1] == [folder.parent.name]:
            return folder.parent.parent.name
        data = self.config["data"]
        root = (data.get("init_args") or {}).get("root")
        name = str(data.get("class_path") or "?").rpartition(".")[2]
        return f"{name} {Path(root).name}" if root and name == "ImageFolder" else name.lower()

    @property
    def has_given_name(self) -> bool:
        """Whether the user chose the name of the folder. The usual one is <network>-seed<seed>, with a number behind
        it for a repeated start.
        """
        seed = re.escape(str(self.run_config.seed))
        return not re.fullmatch(rf"\w+-seed{seed}(-\d+)?", self.folder.name)

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The table of rounds of a run that searches for a lottery ticket; empty for other runs."""
        rounds: list[dict[str, Any]] = self.summary.get("rounds") or []
        return rounds

    def by_density(self, key: str) -> list[tuple[float, float]]:
        """The points (weights left in percent, value of ``key``) of the rounds that have the value."""
        values = [(100 * row["density"], as_number(row.get(key))) for row in self.rounds]
        return [(density, value) for density, value in values if value is not None]

    def value(self, name: str) -> float | None:
        """A number from the summary of the finished run; None if the summary does not have it.

        Args:
            name: the name of a final metric (test/accuracy), of another number of the summary (parameters), or of a
                metric of a round of a lottery ticket (rounds/7/test_accuracy).
        """
        value = self.summary.get("metrics", {}).get(name, self.summary.get(name))
        if name.startswith("rounds/"):
            number, _, key = name.removeprefix("rounds/").partition("/")
            value = next((row.get(key) for row in self.rounds if str(row["round"]) == number), None)
        return as_number(value)


def find(folders: Iterable[Path]) -> list[Record]:
    """Finds every run in the folders and below them.

    Raises:
        InputError: a folder does not exist, or the folders hold no run.
    """
    found: dict[Path, Record] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}")
        for path in sorted(folder.rglob("config.yaml")):
            record = Record(path.parent)
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if not hidden and is_run(record):
                found.setdefault(path.parent.resolve(), record)
    if not found:
        raise InputError(f"there is no run in {', '.join(map(str, folders))}: give a folder that `distill fit` wrote")
    return list(found.values())


def is_run(record: Record) -> bool:
    """Whether the folder's config.yaml is the configuration of a run. Other programs write files with this name,
    too.
    """
    if not (record.folder / "config.yaml").is_file():
        return False
    try:
        return bool(record.run_config)
    except InputError:
        return False


def as_number(value: Any) -> float | None:
    """``value`` as a float; None if it is not a number, or too large for a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _read_summary(path: Path) -> dict[str, Any]:
    """Reads a summary, and checks the types of all parts that reports use."""
    _check_size(path, LARGEST_SUMMARY_BYTES)
    try:
        summary = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not JSON: {error}") from error
    if not isinstance(summary, dict) or not isinstance(summary.get("metrics", {}), dict):
        raise _damaged(path, "expected an object with metrics by name")
    rounds = summary.get("rounds") or []
    if not isinstance(rounds, list) or not all(_is_round(row) for row in rounds):
        raise _damaged(path, "expected rounds with a round and a density each")
    if (calibration := summary.get("calibration")) and not _is_calibration(calibration):
        raise _damaged(path, "expected calibration with count, confidence and right for the same bins")
    return summary


def _is_round(row: Any) -> bool:
    return isinstance(row, dict) and "round" in row and _is_finite(row.get("density"))


def _is_calibration(table: Any) -> bool:
    if not isinstance(table, dict):
        return False
    columns = [table.get(key) for key in ("count", "confidence", "right")]
    lists = [column for column in columns if isinstance(column, list) and all(map(_is_finite, column))]
    return len(lists) == len(columns) and len({len(column) for column in lists}) == 1


def _is_finite(value: Any) -> bool:
    number = as_number(value)
    return number is not None and math.isfinite(number)


def _check_size(path: Path, largest_bytes: int) -> None:
    if (size := path.stat().st_size) > largest_bytes:
        raise _damaged(path, f"it has {size} bytes, and at most {largest_bytes} are read")


def _damaged(path: Path, words: str) -> InputError:
    return InputError(f"{path} is damaged: {words[:LONGEST_REASON]}: move the folder away, or train the run again")
