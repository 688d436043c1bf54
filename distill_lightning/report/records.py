"""Runs as their files have them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from distill_lightning.errors import InputError
from distill_lightning.runs import read_metrics

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(eq=False)
class Record:
    """A run. Its files are read when they are needed."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml. `is_run` tells whether it is a run's."""
        config: dict[str, Any] = yaml.load((self.folder / "config.yaml").read_text(), LOADER)
        return config

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json; empty for a run that is not finished."""
        path = self.folder / "summary.json"
        summary: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return summary

    @cached_property
    def series(self) -> dict[str, list[tuple[float, float]]]:
        """metrics.csv: (step, value) of each point, by tag; empty where there is no such file."""
        found: dict[str, list[tuple[float, float]]] = {}
        for step, tag, value in read_metrics(self.folder / "metrics.csv"):
            found.setdefault(tag, []).append((step, value))
        return found

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Of a lottery ticket; empty for other runs."""
        rounds: list[dict[str, Any]] = self.summary.get("rounds") or []
        return rounds

    def by_density(self, key: str) -> list[tuple[float, float]]:
        """(weights left in percent, value) of each round that has the value."""
        return [(100 * row["density"], row[key]) for row in self.rounds if row.get(key) is not None]

    def value(self, name: str) -> float | None:
        """A number of the finished run, None where there is none.

        Args:
            name: of a final metric (test/accuracy), of another number of the summary (parameters), or of the metric of
                a round of a lottery ticket (rounds/7/test_accuracy).
        """
        value = self.summary.get("metrics", {}).get(name, self.summary.get(name))
        if name.startswith("rounds/"):
            _, number, key = name.split("/", 2)
            value = next((row.get(key) for row in self.rounds if str(row["round"]) == number), None)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


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
    try:
        return isinstance(record.config, dict) and "model" in record.config and "data" in record.config
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
