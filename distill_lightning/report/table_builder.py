"""Builds a table of a study from its specification and the results."""

import dataclasses
import re
from collections.abc import Sequence
from typing import TypeVar

from distill_lightning.report.results import Results, agrees
from distill_lightning.report.specification import Column, Row, TableSpec, Variables
from distill_lightning.report.statistics import mean
from distill_lightning.report.tables import Table, numbers
from distill_lightning.report.units import LABELS, Unit, spread_text

Part = TypeVar("Part", Row, Column)


def build_table(spec: TableSpec, results: Results) -> Table:
    """The table. Cells without finished runs are empty."""
    rows = [row for given in spec.rows for row in _expand(given, [given.run], results)]
    entries = list(dict.fromkeys(row.run for row in rows))
    columns = [column for given in spec.columns for column in _expand(given, entries, results)]
    units = [Unit(column.metric, column.written_as) for column in columns]
    names = [_heading(column, unit) for column, unit in zip(columns, units, strict=True)]
    papers = any(row.paper is not None for row in rows)
    table = Table(spec.title, ["", *names, *(["paper"] if papers else []), "n"], [], spec.note)
    for row in rows:
        label, paper = row.run if row.label is None else row.label, row.paper or ""
        cells = [_values(spec, row, column, unit, results) for column, unit in zip(columns, units, strict=True)]
        texts = [_text(spec, row, values, unit) for values, unit in zip(cells, units, strict=True)]
        counts = {len(values) for values in cells if values} or {0}
        count = " to ".join(str(number) for number in sorted({min(counts), max(counts)}))
        table.rows.append([label, *texts, *([paper] if papers else []), count])
        table.numbers += [[label, name, *numbers(values), paper] for name, values in zip(names, cells, strict=True)]
    return table


def paired(
    own: Sequence[tuple[Variables, float]], other: Sequence[tuple[Variables, float]], over: str | None
) -> list[float]:
    """Differences between two entries' values, paired by the variables that both have.

    Args:
        own: the variables and the value of each run of the first entry.
        other: the same for the second entry, whose values are subtracted.
        over: a variable; None to keep all differences.

    Returns:
        The difference of the means for each combination of shared variables for which both entries have runs. With
        ``over``, the mean of these differences for each value of that variable.
    """
    shared = [name for name in (own[0][0] if own else {}) if other and name in other[0][0]]
    first, second = _by(own, shared), _by(other, shared)
    pairs = {key: mean(first[key]) - mean(second[key]) for key in first if key in second}
    if over is None:
        return list(pairs.values())
    position = shared.index(over) if pairs else 0
    differences: dict[str, list[float]] = {}
    for key, difference in pairs.items():
        differences.setdefault(key[position], []).append(difference)
    return [mean(of_value) for of_value in differences.values()]


def _expand(given: Part, entries: Sequence[str], results: Results) -> list[Part]:
    """A row or a column for each combination of the values of the variables that its label names."""
    label, where = given.label, given.where or {}
    names = re.findall(r"\{(\w+)\}", label or "")
    if label is None or not names:
        return [given]
    found = [result.variables for entry in entries for result in results.entries[entry]]
    found = [variables for variables in found if agrees(variables, where) and variables.keys() >= set(names)]
    combinations = [{name: variables[name] for name in names} for variables in found]
    expanded = []
    for values in {repr(values): values for values in combinations}.values():
        text = label
        for name, value in values.items():
            text = text.replace("{" + name + "}", str(value))
        expanded.append(dataclasses.replace(given, label=text, where=where | values))
    return expanded


def _heading(column: Column, unit: Unit) -> str:
    if column.label is not None:
        return column.label
    return LABELS.get(column.metric, column.metric + (unit.words and f",{unit.words}"))


def _values(spec: TableSpec, row: Row, column: Column, unit: Unit, results: Results) -> list[float]:
    """The values whose mean a cell shows, in the unit of the column."""
    where = (row.where or {}) | (column.where or {})
    own = results.values(row.run, where, column.metric)
    if row.minus is not None:
        other = results.values(row.minus, where, column.metric)
        return [unit.difference(difference) for difference in paired(own, other, spec.over)]
    if spec.over:
        return [unit(mean(values)) for values in _by(own, [spec.over]).values()]
    return [unit(value) for _, value in own]


def _text(spec: TableSpec, row: Row, values: list[float], unit: Unit) -> str:
    text = spread_text(values, unit, spec.spread == "interval")
    is_above_0 = row.minus is not None and values and mean(values) > 0 and unit.text(mean(values)) != unit.text(0)
    return f"+{text}" if is_above_0 else text


def _by(values: Sequence[tuple[Variables, float]], names: Sequence[str]) -> dict[tuple[str, ...], list[float]]:
    """The values, grouped by the variables in ``names``."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for variables, value in values:
        groups.setdefault(tuple(repr(variables.get(name)) for name in names), []).append(value)
    return groups
