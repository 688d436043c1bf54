"""Differences between two groups of runs, paired by seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill_lightning.errors import InputError
from distill_lightning.report.groups import Group
from distill_lightning.report.statistics import mean
from distill_lightning.report.units import Unit, spread_text

MARKS = {
    "all": "", "some": "\N{DAGGER}", "none": "\N{DOUBLE DAGGER}",
}  # fmt: skip
NOTES = {
    "some": f"{MARKS['some']} The seeds are not the same: the difference is over the seeds that both have.",
    "none": f"{MARKS['none']} No seed is the same: the difference of the two means, without an interval.",
}


@dataclass(frozen=True)
class Difference:
    """The differences of a metric between two groups."""

    values: tuple[float, ...]
    """A difference for each seed that both have; or the difference of the means, if there is no such seed."""
    seeds: Literal["all", "some", "none"]
    """Which of the seeds both groups have."""

    def text(self, unit: Unit) -> str:
        """The mean with the 95 % t-interval, and a mark if the seeds are not the same."""
        values = [unit.difference(value) for value in self.values]
        sign = "+" if mean(values) > 0 and unit.text(mean(values)) != unit.text(0) else ""
        return f"{sign}{spread_text(values, unit, interval=True)}{MARKS[self.seeds]}"


def difference(own: Group, other: Group, metric: str) -> Difference | None:
    """The differences of a metric between two groups; None if one of them does not have the metric, or if they tell
    other classes apart.
    """
    if own.classes and other.classes and own.classes != other.classes:
        return None
    first, second = own.by_seed(metric), other.by_seed(metric)
    if not first or not second:
        return None
    shared = [seed for seed in first if seed in second]
    if not shared:
        return Difference((mean(list(first.values())) - mean(list(second.values())),), "none")
    values = tuple(first[seed] - second[seed] for seed in shared)
    return Difference(values, "all" if len(shared) == len(first) == len(second) else "some")


def baseline(groups: Sequence[Group], chosen: Sequence[Path]) -> Group | None:
    """The group that others are compared with.

    Args:
        groups: the groups of a data set.
        chosen: folders of runs. A group that has one of them is the baseline.

    Returns:
        The chosen group; otherwise the group of the method Baseline with most seeds; None if there is none.
    """
    wanted = {folder.resolve() for folder in chosen}
    for group in groups:
        if any(record.folder.resolve() in wanted for record in group.records):
            return group
    plain = [group for group in groups if group.method == "Baseline"]
    return max(plain, key=lambda group: len(group.records), default=None)


def refuse_unknown(groups: Sequence[Group], chosen: Sequence[Path]) -> None:
    """Refuses a baseline that is not shown.

    Raises:
        InputError: a folder is not that of a run in the groups.
    """
    known = {record.folder.resolve() for group in groups for record in group.records}
    for folder in chosen:
        if folder.resolve() not in known:
            raise InputError(f"--baseline {folder} is none of the runs that are shown: give the folder of one of them")
