"""A list of runs as a table of texts, with a column for each option that differs."""

import collections
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from distill_lightning.catalogue.info import RunInfo
from distill_lightning.files import printable
from distill_lightning.runs import SHAPE

HEADER = ("run", "state", "accuracy, %", "epochs", "time")
"""The columns that every table has."""
SHOWN_OTHERWISE = ("model", "data")
"""Options that the path of a run shows: the class of the method and of the data."""


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    Args:
        header: the names of the columns: those of ``HEADER``, then options, those first that say most.
        rows: a row of texts for each run.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """The table as aligned lines, without borders."""
        lines = [[printable(cell) for cell in line] for line in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)
        return "\n".join(line.rstrip() for line in padded)


def grid(infos: Sequence[RunInfo]) -> Grid:
    """The table of some runs."""
    keys = differing(infos)
    names = short_names(keys, {key for info in infos for key in info.settings})
    rows = [(*_main_cells(info), *(value_text(info.settings.get(key)) for key in keys)) for info in infos]
    return Grid((*HEADER, *(names[key] for key in keys)), tuple(rows))


def differing(infos: Sequence[RunInfo]) -> list[str]:
    """The settings that are not the same in all runs.

    First come those that differ between runs of the same data set and method, then those that all runs have, then the
    others, such as options that only one of the methods has.
    """
    readable = [info for info in infos if info.state != "damaged"]
    alike: dict[tuple[str, str], list[RunInfo]] = collections.defaultdict(list)
    for info in readable:
        alike[info.data_set, info.method].append(info)
    keys = [key for key in _keys(readable) if _differs(key, readable) and key not in SHOWN_OTHERWISE]
    keys = [key for key in keys if key.rpartition(".")[2] not in SHAPE]

    def rank(key: str) -> int:
        if any(_differs(key, group) for group in alike.values()):
            return 0
        return 1 if all(key in info.settings for info in readable) else 2

    return sorted(keys, key=rank)


def short_names(keys: Iterable[str], among: Iterable[str]) -> dict[str, str]:
    """Full names, shortened from the left as far as they stay different from the other names.

    Args:
        keys: full names, such as "model.optimizer.lr".
        among: all full names.

    Returns:
        The short names by full name, such as "optimizer.lr" where another part has an "lr" too.
    """
    counts = collections.Counter(ending for key in set(among) | set(keys) for ending in endings(key))
    return {
        key: next((ending for ending in endings(key) if counts[ending] == 1 and not ending.isdigit()), key)
        for key in keys
    }


def endings(key: str) -> list[str]:
    """The endings of a full name at its dots, the shortest first: "lr", "optimizer.lr", "model.optimizer.lr"."""
    parts = key.split(".")
    return [".".join(parts[start:]) for start in reversed(range(len(parts)))]


def value_text(value: Any) -> str:
    """The value of an option as YAML has it; empty for None."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def accuracy_text(info: RunInfo) -> str:
    """The accuracy in percent: "97.12", or "95.83 val" if there is only that of validation."""
    if info.accuracy is None:
        return ""
    part, value = info.accuracy
    return f"{100 * value:.2f}" + (" val" if part == "val" else "")


def epochs_text(info: RunInfo) -> str:
    """The epochs that have ended, of those that were asked for: "3/20"."""
    if info.epochs is None and info.max_epochs is None:
        return ""
    return "/".join(str(number) for number in (info.epochs or 0, info.max_epochs) if number is not None)


def time_text(info: RunInfo) -> str:
    """The training time: "45 s", "3:20 min", "2:05 h"; with "~" if interruptions are counted."""
    seconds = info.wall_time_s if info.wall_time_s is not None else info.elapsed_s
    if seconds is None or not 0 <= seconds < 1e9:
        return ""
    mark = "~" if info.wall_time_s is None else ""
    whole = round(seconds)
    if whole < 60:
        return f"{mark}{seconds:.1f} s" if seconds < 10 else f"{mark}{whole} s"
    if whole < 3600:
        return f"{mark}{whole // 60}:{whole % 60:02} min"
    return f"{mark}{whole // 3600}:{whole % 3600 // 60:02} h"


def _main_cells(info: RunInfo) -> tuple[str, ...]:
    return str(info.folder), info.state, accuracy_text(info), epochs_text(info), time_text(info)


def _keys(infos: Sequence[RunInfo]) -> list[str]:
    return list(dict.fromkeys(key for info in infos for key in info.settings))


def _differs(key: str, infos: Sequence[RunInfo]) -> bool:
    return len({str(info.settings.get(key)) for info in infos}) > 1
