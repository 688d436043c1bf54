"""Groups of runs that differ only in their seed."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill_lightning.report.labels import labels
from distill_lightning.report.records import Record, is_run
from distill_lightning.report.statistics import mean
from distill_lightning.runs import named

MOST_GENERATIONS = 50
"""The largest number of generations of teachers that `kind` follows."""


@dataclass(eq=False)
class Group:
    """Runs that differ only in their seed."""

    label: str
    records: list[Record]

    def values(self, name: str) -> list[float]:
        """The values of a metric or another number, from the runs that have it. See `Record.value`."""
        values = [record.value(name) for record in self.records]
        return [value for value in values if value is not None]

    def by_seed(self, name: str) -> dict[Any, float]:
        """The values of a metric by seed, from the runs that have it. Of runs with one seed, but other teachers, it is
        the mean.
        """
        found: dict[Any, list[float]] = {}
        for record in self.records:
            if (value := record.value(name)) is not None:
                found.setdefault(record.run_config.seed, []).append(value)
        return {seed: mean(values) for seed, values in found.items()}

    @property
    def method(self) -> str:
        """The name of the method's class."""
        return str(self.records[0].run_config.settings().get("model", "?"))

    @property
    def data_set(self) -> str:
        """See `Record.data_set`."""
        return self.records[0].data_set

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes; empty if no run has a confusion matrix."""
        return next((names for names, _ in (record.confusion for record in self.records) if names), [])

    @cached_property
    def name(self) -> str | None:
        """The name that the user gave to the runs, without the seed; None if they have the usual names, or several."""
        names = {_without_seed(record.folder.name, record) for record in self.records}
        name = names.pop()
        return None if names or not self.records[0].has_given_name else name

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of the first run, without the seed. A checkpoint is named by the folder of its run, in which
        "*" stands for the seed.
        """
        found = self.records[0].run_config.settings()
        found.pop("seed_everything", None)
        return {key: self._runs_of(key) if str(value).endswith(".ckpt") else value for key, value in found.items()}

    def _runs_of(self, key: str) -> str:
        """The runs whose checkpoints a setting names, in all runs of the group."""
        paths = [(Path(str(record.run_config.settings().get(key, ""))), record) for record in self.records]
        return ", ".join(dict.fromkeys(_without_seed(path.parent.parent.name, record) for path, record in paths))


def _without_seed(name: str, record: Record) -> str:
    """The name with "*" instead of the seed of a run."""
    return re.sub(rf"(?<!\d){re.escape(str(record.run_config.seed))}(?!\d)", "*", name)


def kind(record: Record, known: dict[Path, str | None], seeds: bool = False, levels: int = MOST_GENERATIONS) -> str:
    """The identity of a run without its seed and its teachers' seeds: the name of its data set and a digest.

    Args:
        record: the run.
        known: the kinds of teachers' runs that have been found already, by folder; None for a folder without a run. The
            function adds more.
        seeds: whether the seeds count too.
        levels: how many generations of teachers are followed.
    """

    def kind_of_teacher(folder: Path) -> str | None:
        # a relative path starts at the folder in which the run was started, which is a parent of the run's folder; the
        # record of a teacher lies among the same records as that of its student
        above = record.folder.absolute().parents
        beside = [above[2].joinpath(*folder.parts[-3:])] if len(above) > 2 else []
        places = [folder, *(one / folder for one in above), *beside]
        # os.path.isfile is False for a path that no file can have; Path.is_file raises an error
        place = next((place for place in places if os.path.isfile(place / "config.yaml")), None)
        if place is None or levels == 0:
            return None
        if place not in known:
            known[place] = None  # for now: this ends the search for two runs that name each other as teachers
            teacher = Record(place)
            known[place] = kind(teacher, known, seeds, levels - 1) if is_run(teacher) else None
        return known[place]

    config = record.run_config if seeds else record.run_config.with_options(seed_everything=None)
    return named(record.folder, config.id(kind_of_teacher))


def by_kind(records: Sequence[Record]) -> list[list[Record]]:
    """Sorts records by kind.

    Returns:
        A list for each kind. Of the runs with the same seeds, also of their teachers, it has one: the first finished
        one, or the first one.
    """
    kinds: dict[str, dict[str, Record]] = {}
    known: dict[Path, str | None] = {}
    known_with_seeds: dict[Path, str | None] = {}
    for record in records:
        of_kind, same = kinds.setdefault(kind(record, known), {}), kind(record, known_with_seeds, seeds=True)
        if same not in of_kind or (record.summary and not of_kind[same].summary):
            of_kind[same] = record
    return [list(of_kind.values()) for of_kind in kinds.values()]


def grouped(records: Sequence[Record]) -> list[Group]:
    """Groups of runs. The label of a group is its method, and what differs from other groups of the same data set and
    method.
    """
    groups = [Group("", of_kind) for of_kind in by_kind(records)]
    alike: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        alike.setdefault((group.data_set, group.method), []).append(group)
    for (_, method), same in alike.items():
        settings, names = [group.settings for group in same], [group.name for group in same]
        for group, label in zip(same, labels(method, names, settings), strict=True):
            group.label = label
    return groups


def by_data_set(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups of each data set, in their order."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.data_set, []).append(group)
    return found
