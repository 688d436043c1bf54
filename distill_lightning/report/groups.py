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
"""Teachers of teachers of teachers that `kind` looks at."""


@dataclass(eq=False)
class Group:
    """Runs that differ only in their seed."""

    label: str
    records: list[Record]

    def values(self, name: str) -> list[float]:
        """A number of each run that has it. See `Record.value`."""
        values = [record.value(name) for record in self.records]
        return [value for value in values if value is not None]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Of the first run, without seed and paths of checkpoints."""
        found = self.records[0].run_config.settings()
        return {k: v for k, v in found.items() if k != "seed_everything" and not str(v).endswith(".ckpt")}


def kind(record: Record, known: dict[Path, str | None], levels: int = MOST_GENERATIONS) -> str:
    """What a run computes, whatever its seed and its teachers' seeds: its data set's name and a digest.

    Args:
        record: of the run.
        known: kinds of the runs that checkpoints lie in, None where there is no run. More are added as they are found.
        levels: how many generations of teachers are looked at.
    """

    def kind_of_teacher(folder: Path) -> str | None:
        # a relative path starts at the folder that the run was started in, which is somewhere above it
        places = [folder, *(above / folder for above in record.folder.absolute().parents)]
        # os.path.isfile: it is False for a path that no file can have, where Path.is_file raises
        place = next((place for place in places if os.path.isfile(place / "config.yaml")), None)
        if place is None or levels == 0:
            return None
        if place not in known:
            known[place] = None  # until it is found: two runs that name each other as teachers end here
            teacher = Record(place)
            known[place] = kind(teacher, known, levels - 1) if is_run(teacher) else None
        return known[place]

    return named(record.folder, record.run_config.with_options(seed_everything=None).id(kind_of_teacher))


def by_kind(records: Sequence[Record]) -> list[list[Record]]:
    """Lists of records of one kind. Each list has one record of each seed: the first one that is finished."""
    kinds: dict[str, dict[Any, Record]] = {}
    known: dict[Path, str | None] = {}
    for record in records:
        of_seed, seed = kinds.setdefault(kind(record, known), {}), record.config.get("seed_everything")
        if seed not in of_seed or (record.summary and not of_seed[seed].summary):
            of_seed[seed] = record
    return [list(of_seed.values()) for of_seed in kinds.values()]


def grouped(records: Sequence[Record]) -> list[Group]:
    """Groups, each with a label: its method, and the settings that tell it from other groups of the method."""
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
        if seen[group.label] > 1:  # they differ in what was cut off, or only in their teachers
            group.label += f" ({seen[group.label]})"
    return groups


def differences(groups: Sequence[Group]) -> list[str]:
    """The settings that are not the same in all groups."""
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    return [key for key in keys if len({str(group.settings.get(key)) for group in groups}) > 1]
