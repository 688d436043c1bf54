"""Runs as their files have them.

The files may come from anybody. What is in them is data and nothing else: a config.yaml that is not a run's is passed
over, and any other file that is damaged is refused by name.
"""

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill_lightning.errors import InputError
from distill_lightning.runs import RunConfig, read_metrics

LARGEST_SUMMARY_BYTES = 2**26
LARGEST_METRICS_BYTES = 2**28
LARGEST_STEP = 2**63
LONGEST_REASON = 200


@dataclass(eq=False)
class Record:
    """A run. Its files are read when they are needed."""

    folder: Path

    @cached_property
    def run_config(self) -> RunConfig:
        """The resolved options. `is_run` tells whether they are a run's."""
        return RunConfig.read(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        """The options as plain data."""
        return self.run_config.options

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json; empty for a run that is not finished.

        Raises:
            InputError: it is damaged.
        """
        path = self.folder / "summary.json"
        return _read_summary(path) if path.is_file() else {}

    @cached_property
    def series(self) -> dict[str, list[tuple[float, float]]]:
        """metrics.csv: (step, value) of each point, by tag; empty where there is no such file.

        Raises:
            InputError: it is damaged.
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

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Of a lottery ticket; empty for other runs."""
        rounds: list[dict[str, Any]] = self.summary.get("rounds") or []
        return rounds

    def by_density(self, key: str) -> list[tuple[float, float]]:
        """(weights left in percent, value) of each round that has the value."""
        values = [(100 * row["density"], as_number(row.get(key))) for row in self.rounds]
        return [(density, value) for density, value in values if value is not None]

    def value(self, name: str) -> float | None:
        """A number of the finished run, None where there is none.

        Args:
            name: of a final metric (test/accuracy), of another number of the summary (parameters), or of the metric of
                a round of a lottery ticket (rounds/7/test_accuracy).
        """
        value = self.summary.get("metrics", {}).get(name, self.summary.get(name))
        if name.startswith("rounds/"):
            number, _, key = name.removeprefix("rounds/").partition("/")
            value = next((row.get(key) for row in self.rounds if str(row["round"]) == number), None)
        return as_number(value)


def find(folders: Iterable[Path]) -> list[Record]:
    """Every run in or under the folders.

    Raises:
        InputError: a folder does not exist, or there is no run.
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
    """Whether the folder's config.yaml is that of a run. Other programs write files of that name, too."""
    if not (record.folder / "config.yaml").is_file():
        return False
    try:
        return bool(record.run_config)
    except InputError:
        return False


def as_number(value: Any) -> float | None:
    """``value`` as a float; None for what is not a number, or too large for one."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _read_summary(path: Path) -> dict[str, Any]:
    """A summary whose parts that reports use have the right types."""
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
