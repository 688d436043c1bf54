"""Groups of runs that differ only in their seed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill_lightning.report.records import Record, is_run
from distill_lightning.runs import SHAPE, named

LONGEST_LABEL = 60
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

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of the first run, without the seed and without paths of checkpoints."""
        found = self.records[0].run_config.settings()
        return {k: v for k, v in found.items() if k != "seed_everything" and not str(v).endswith(".ckpt")}


def kind(record: Record, known: dict[Path, str | None], levels: int = MOST_GENERATIONS) -> str:
    """The identity of a run without its seed and its teachers' seeds: the name of its data set and a digest.

    Args:
        record: the run.
        known: the kinds of teachers' runs that have been found already, by folder; None for a folder without a run. The
            function adds more.
        levels: how many generations of teachers are followed.
    """

    def kind_of_teacher(folder: Path) -> str | None:
        # a relative path starts at the folder in which the run was started, which is a parent of the run's folder
        places = [folder, *(above / folder for above in record.folder.absolute().parents)]
        # os.path.isfile is False for a path that no file can have; Path.is_file raises an error
        place = next((place for place in places if os.path.isfile(place / "config.yaml")), None)
        if place is None or levels == 0:
            return None
        if place not in known:
            known[place] = None  # for now: this ends the search for two runs that name each other as teachers
            teacher = Record(place)
            known[place] = kind(teacher, known, levels - 1) if is_run(teacher) else None
        return known[place]

    return named(record.folder, record.run_config.with_options(seed_everything=None).id(kind_of_teacher))


def by_kind(records: Sequence[Record]) -> list[list[Record]]:
    """Sorts records by kind.

    Returns:
        A list for each kind. It has one record for each seed: the first finished one, or the first one.
    """
    kinds: dict[str, dict[Any, Record]] = {}
    known: dict[Path, str | None] = {}
    for record in records:
        of_seed, seed = kinds.setdefault(kind(record, known), {}), record.config.get("seed_everything")
        if seed not in of_seed or (record.summary and not of_seed[seed].summary):
            of_seed[seed] = record
    return [list(of_seed.values()) for of_seed in kinds.values()]


def grouped(records: Sequence[Record]) -> list[Group]:
    """Groups of runs. The label of a group is its method, and the settings in which it differs from other groups of
    it.
    """
    groups = [Group("", of_kind) for of_kind in by_kind(records)]
    methods: dict[str, list[Group]] = {}
    for group in groups:
        methods.setdefault(str(group.settings.get("model", "?")), []).append(group)
    for method, alike in methods.items():
        differing = [key for key in differences(alike) if key.rpartition(".")[2] not in SHAPE]
        for group in alike:
            words = [f"{key.rpartition('.')[2]} {group.settings[key]}" for key in differing if key in group.settings]
            group.label = ", ".join([method, *words])
            if len(group.label) > LONGEST_LABEL:
                group.label = group.label[: LONGEST_LABEL - 1] + "…"
    seen: dict[str, int] = {}
    for group in groups:
        seen[group.label] = seen.get(group.label, 0) + 1
        if seen[group.label] > 1:  # the groups differ only in what was cut off, or in their teachers
            group.label += f" ({seen[group.label]})"
    return groups


def differences(groups: Sequence[Group]) -> list[str]:
    """The settings that are not the same in all groups."""
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    return [key for key in keys if len({str(group.settings.get(key)) for group in groups}) > 1]
