"""Runs as they lie on disk: what each was, what came of it, and which are the same but for the seed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill_lightning.errors import InputError
from distill_lightning.runs import SHAPE, RunConfig, named, read_metrics


@dataclass(eq=False)
class Record:
    """A run."""

    folder: Path

    @cached_property
    def run_config(self) -> RunConfig:
        return RunConfig.read(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        return self.run_config.options

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Empty for a run that is not finished."""
        path = self.folder / "summary.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    @cached_property
    def series(self) -> dict[str, list[tuple[int, float]]]:
        """What was logged: (step, value) by tag."""
        found: dict[str, list[tuple[int, float]]] = {}
        for step, tag, value in read_metrics(self.folder / "metrics.csv"):
            found.setdefault(tag, []).append((step, value))
        return found

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Of a lottery ticket; empty where there were none."""
        return self.summary.get("rounds", [])

    def by_density(self, key: str) -> list[tuple[float, float]]:
        """What each round came to: (percentage of weights left, value)."""
        return [(100 * row["density"], row[key]) for row in self.rounds if row.get(key) is not None]

    def value(self, name: str) -> float | None:
        """A final metric (test/accuracy), another number of the summary (parameters), or one of a round of a lottery
        ticket (rounds/7/test_accuracy)."""
        value = self.summary.get("metrics", {}).get(name, self.summary.get(name))
        if name.startswith("rounds/"):
            _, number, key = name.split("/", 2)
            value = next((row.get(key) for row in self.rounds if str(row["round"]) == number), None)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def kind(record: Record, known: dict[Path, str | None]) -> str:
    """What a run computes, seeds aside, its teachers' included: its data set's name and a digest.

    Args:
        record: of the run.
        known: kinds of the runs that checkpoints lie in, None for no run, as they are found.
    """

    def of_run(teacher: Path) -> str | None:
        # a relative path is from where the run was started, which is somewhere above it
        places = [teacher, *(above / teacher for above in record.folder.absolute().parents)]
        place = next((p for p in places if (p / "config.yaml").is_file()), teacher)
        if place not in known:
            known[place] = kind(Record(place), known) if (place / "config.yaml").is_file() else None
        return known[place]

    return named(record.folder, record.run_config.with_options(seed_everything=None).id(of_run))


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
            if not hidden and _is_run(record):
                found.setdefault(path.parent.resolve(), record)
    if not found:
        raise InputError(f"there is no run in {', '.join(map(str, folders))}: give a folder that `distill fit` wrote")
    return list(found.values())


def _is_run(record: Record) -> bool:
    """Others write files of that name too."""
    try:
        return isinstance(record.config, dict) and "model" in record.config and "data" in record.config
    except InputError:
        return False


@dataclass(eq=False)
class Group:
    """Runs that are the same but for the seed."""

    label: str
    records: list[Record]

    def values(self, name: str) -> list[float]:
        values = [record.value(name) for record in self.records]
        return [value for value in values if value is not None]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Of its first run, seeds and teachers' paths aside."""
        found = self.records[0].run_config.settings()
        return {k: v for k, v in found.items() if k != "seed_everything" and not str(v).endswith(".ckpt")}


def by_kind(records: list[Record]) -> list[list[Record]]:
    """Records that are the same but for the seed, together: one of each seed, the first that is finished."""
    kinds: dict[str, dict[Any, Record]] = {}
    known: dict[Path, str | None] = {}
    for record in records:
        of_seed, seed = kinds.setdefault(kind(record, known), {}), record.config.get("seed_everything")
        if seed not in of_seed or (record.summary and not of_seed[seed].summary):
            of_seed[seed] = record
    return [list(of_seed.values()) for of_seed in kinds.values()]


def grouped(records: list[Record]) -> list[Group]:
    """Groups, each named by its method and by what tells it from others of that method."""
    groups = [Group("", kind) for kind in by_kind(records)]
    methods: dict[str, list[Group]] = {}
    for group in groups:
        methods.setdefault(str(group.settings.get("model", "?")), []).append(group)
    for method, alike in methods.items():
        for group in alike:
            told = [key for key in differences(alike) if key in group.settings and key.rpartition(".")[2] not in SHAPE]
            words = [f"{key.rpartition('.')[2]} {group.settings[key]}" for key in told]
            group.label = ", ".join([method, *words])
            if len(group.label) > 60:
                group.label = group.label[:59] + "…"
    seen: dict[str, int] = {}
    for group in groups:
        seen[group.label] = seen.get(group.label, 0) + 1
        if seen[group.label] > 1:  # cut short, or told apart by their teachers alone
            group.label += f" ({seen[group.label]})"
    return groups


def differences(groups: list[Group]) -> list[str]:
    """The settings that are not the same in all groups."""
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    return [key for key in keys if len({str(group.settings.get(key)) for group in groups}) > 1]
