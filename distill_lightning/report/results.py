"""The results of a study's runs, by entry and variables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_lightning.report.groups import Group, by_kind
from distill_lightning.report.records import Record
from distill_lightning.report.specification import TableSpec, Variables


@dataclass(frozen=True)
class Result:
    """A finished run of a study."""

    variables: Variables
    record: Record


class Results:
    """The finished runs of a study.

    Args:
        runs: the variables and the folder of each run, finished or not, by entry.
        tables: the tables of the study. Labels that they give to entries are used in figures, too.
    """

    def __init__(self, runs: Mapping[str, Sequence[tuple[Variables, Path]]], tables: Sequence[TableSpec] = ()) -> None:
        self.labels = {entry: entry.replace("_", " ") for entry in runs} | _labels(tables)
        self.entries = {
            entry: [Result(variables, Record(folder)) for variables, folder in planned if _finished(folder)]
            for entry, planned in runs.items()
        }
        self.planned = sum(map(len, runs.values()))

    @property
    def finished(self) -> int:
        """The number of planned runs that are finished."""
        return sum(map(len, self.entries.values()))

    def select(self, entry: str, where: Variables | None) -> list[Result]:
        """The results of an entry that have the values in ``where``. Variables that the entry does not have are
        ignored.
        """
        return [result for result in self.entries[entry] if agrees(result.variables, where)]

    def values(self, entry: str, where: Variables | None, metric: str) -> list[tuple[Variables, float]]:
        """The variables and the value of a metric, for each result of `select` that has the metric."""
        found = [(result.variables, result.record.value(metric)) for result in self.select(entry, where)]
        return [(variables, value) for variables, value in found if value is not None]

    def groups(self) -> list[Group]:
        """Groups of results that differ only in their seed. Their labels are the entry and the variables that
        differ.
        """
        groups = []
        for entry, results in self.entries.items():
            variables_of = {result.record: result.variables for result in results}
            kinds = by_kind([result.record for result in results])
            for kind in kinds:
                mine = [variables_of[record] for record in kind]
                telling = [name for name in mine[0] if len(kinds) > 1 and len({str(v[name]) for v in mine}) == 1]
                label = ", ".join([self.labels[entry], *(f"{name} {mine[0][name]}" for name in telling)])
                groups.append(Group(label, kind))
        return groups


def agrees(variables: Variables, where: Variables | None) -> bool:
    """Whether the variables have the values in ``where``. Variables that are missing are ignored."""
    return all(variables.get(name) == value for name, value in (where or {}).items() if name in variables)


def _finished(folder: Path) -> bool:
    return (folder / "summary.json").is_file()


def _labels(tables: Sequence[TableSpec]) -> dict[str, str]:
    """The labels that rows give to whole entries. If an entry has several, the first one is taken."""
    rows = [row for table in tables for row in table.rows if row.minus is None and row.where is None]
    return {row.run: row.label for row in reversed(rows) if row.label is not None and "{" not in row.label}
