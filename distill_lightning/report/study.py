"""A study's tables and figures.

    tables:
      - title: Temperature
        rows:                                     # a row for each entry, or for each value of a variable in its label
          - {run: student, label: "T = {temperature}", where: {units: 800}, paper: 74}
          - {run: student, minus: teacher, label: student - teacher}       # differences, paired by shared variables
        columns:                                  # metrics, tags or numbers of the summary
          - test/nll
          - {metric: test/accuracy, as: errors of 10000, label: errors, where: {units: 30}}
        over: repetition                          # first the mean for each value of this variable
        spread: interval                          # 95 % t-interval of the mean, instead of the standard deviation
        note: text below
    figures:
      - {title: ..., run: [student, plain], y: val/accuracy}                          # a curve against the step
      - {title: ..., run: student, y: test/accuracy, x: temperature, by: units, log_x: true}   # against a variable

The spread of a cell is that over all runs of its entry that its row and column leave. Cells of runs that are not there
are empty.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from distill_lightning.errors import InputError, nearest
from distill_lightning.files import write_whole
from distill_lightning.plots import Line, plot
from distill_lightning.report import page
from distill_lightning.report.records import Group, Record, by_kind
from distill_lightning.report.statistics import mean
from distill_lightning.report.tables import Table, Unit, spread_text

KEYS_OF_TABLE = {"title", "rows", "columns", "over", "spread", "note"}
KEYS_OF_ROW = {"run", "label", "where", "paper", "minus"}
KEYS_OF_COLUMN = {"metric", "label", "where", "as"}
KEYS_OF_FIGURE = {"title", "run", "y", "x", "by", "where", "log_x", "x_label", "as"}
Variables = dict[str, Any]


class Planned(Protocol):
    """What a study says of a run."""

    entry: str
    variables: Variables
    folder: Path


class Results:
    """What the runs of a study came to: records by entry, with their variables."""

    def __init__(self, entries: Mapping[str, Sequence[Planned]]) -> None:
        self.entries = {
            name: [(run.variables, Record(run.folder)) for run in runs if (run.folder / "summary.json").is_file()]
            for name, runs in entries.items()
        }

    def values(self, entry: str, where: Variables, metric: str) -> list[tuple[Variables, float]]:
        found = [(v, record.value(metric)) for v, record in self.entries[entry] if _agree(v, where)]
        return [(variables, value) for variables, value in found if value is not None]


def _agree(variables: Variables, where: Variables) -> bool:
    return all(variables.get(key) == value for key, value in where.items() if key in variables)


# Checking, before anything is run


def check(study: dict[str, Any], variables: dict[str, list[Variables]], path: Path) -> None:
    """Refuses what names a key, a run, a variable or a unit that is not there.

    Raises:
        InputError: in one line.
    """

    def known(key: Any, words: Any, what: str) -> None:
        if key not in words:
            raise InputError(f"{path}: {what} {key}{nearest(str(key), map(str, words))}")

    def variable(name: str, entries: list[str], where: str) -> None:
        if not any(name in run for entry in entries for run in variables[entry]):
            raise InputError(f"{path}: {where} names the variable {name}, which {' and '.join(entries)} has not")

    def unit(metric: str, written: str | None, where: str) -> None:
        try:
            Unit(metric, written)
        except ValueError as error:
            raise InputError(f"{path}: {where}: as is {error}") from error

    for table in study.get("tables") or []:
        where = f'the table "{table.get("title", "")}"'
        for key in table:
            known(key, KEYS_OF_TABLE, f"{where} has an unknown key")
        if not table.get("rows") or not table.get("columns"):
            raise InputError(f"{path}: {where} needs rows and columns")
        if table.get("spread", "std") not in ("std", "interval"):
            raise InputError(f"{path}: {where}: spread is {table['spread']}: expected std or interval")
        for row in table["rows"]:
            for key in row:
                known(key, KEYS_OF_ROW, f"a row of {where} has an unknown key")
            for key in ("run", *(["minus"] if "minus" in row else [])):
                known(row.get(key), variables, f"{where} has a row of an unknown run")
            for name in [*row.get("where", {}), *re.findall(r"\{(\w+)\}", row.get("label", ""))]:
                variable(name, [row["run"]], where)
            if "over" in table:
                variable(table["over"], [row["run"]], where)
        for column in table["columns"]:
            if isinstance(column, dict):
                for key in column:
                    known(key, KEYS_OF_COLUMN, f"a column of {where} has an unknown key")
                if "metric" not in column:
                    raise InputError(f"{path}: a column of {where} has no metric")
                for name in [*column.get("where", {}), *re.findall(r"\{(\w+)\}", column.get("label", ""))]:
                    variable(name, [row["run"] for row in table["rows"]], where)
                unit(column["metric"], column.get("as"), where)
    for figure in study.get("figures") or []:
        where = f'the figure "{figure.get("title", "")}"'
        for key in figure:
            known(key, KEYS_OF_FIGURE, f"{where} has an unknown key")
        for run in _listed(figure.get("run")):
            known(run, variables, f"{where} shows an unknown run")
        if "y" not in figure:
            raise InputError(f"{path}: {where} has no y")
        for key in ("x", "by"):
            if key in figure:
                variable(figure[key], _listed(figure["run"]), where)
        unit(figure["y"], figure.get("as"), where)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# Tables


def table_of(spec: dict[str, Any], results: Results) -> Table:
    rows = [row for given in spec["rows"] for row in _expanded(given, [given["run"]], results)]
    entries = list(dict.fromkeys(row["run"] for row in rows))
    columns = [{"metric": column} if isinstance(column, str) else column for column in spec["columns"]]
    columns = [column for given in columns for column in _expanded(given, entries, results)]
    papers = any("paper" in row for row in rows)
    lines = []
    for row in rows:
        cells = [_cell(spec, row, column, results) for column in columns]
        count = max((n for _, n in cells), default=0)
        paper = [str(row.get("paper", ""))] if papers else []
        lines.append([row.get("label", row["run"]), *(text for text, _ in cells), *paper, str(count)])
    units = [Unit(column["metric"], column.get("as")) for column in columns]
    names = [
        column.get("label", page.LABELS.get(column["metric"], column["metric"] + (unit.words and f",{unit.words}")))
        for column, unit in zip(columns, units, strict=True)
    ]
    header = ["", *names, *(["paper"] if papers else []), "n"]
    return Table(spec.get("title", ""), header, lines, spec.get("note", ""))


def _expanded(given: dict[str, Any], entries: list[str], results: Results) -> list[dict[str, Any]]:
    """One for each combination of the values of the variables that its label names."""
    names = re.findall(r"\{(\w+)\}", given.get("label", ""))
    if not names:
        return [given]
    where = given.get("where", {})
    seen: dict[tuple, None] = {}
    for entry in entries:
        for variables, _ in results.entries[entry]:
            if _agree(variables, where) and all(name in variables for name in names):
                seen[tuple(variables[name] for name in names)] = None
    expanded = []
    for values in seen:
        label = given["label"]
        for name, value in zip(names, values, strict=True):
            label = label.replace("{" + name + "}", str(value))
        expanded.append(given | {"label": label, "where": where | dict(zip(names, values, strict=True))})
    return expanded


def _cell(spec: dict[str, Any], row: dict[str, Any], column: dict[str, Any], results: Results) -> tuple[str, int]:
    """Text, and how many values it is of."""
    unit = Unit(column["metric"], column.get("as"))
    where = row.get("where", {}) | column.get("where", {})
    own = results.values(row["run"], where, column["metric"])
    over = spec.get("over")
    if "minus" in row:
        other = results.values(row["minus"], where, column["metric"])
        values = [unit.difference(d) for d in paired(own, other, over)]
    elif over:
        values = [unit(mean(group)) for group in _by(own, [over]).values()]
    else:
        values = [unit(value) for _, value in own]
    text = spread_text(values, unit, spec.get("spread") == "interval")
    sign = "+" if "minus" in row and text and not text.startswith(("\N{MINUS SIGN}", "0.00")) else ""
    return sign + text, len(values)


def paired(own: list[tuple[Variables, float]], other: list[tuple[Variables, float]], over: str | None) -> list[float]:
    """Differences of means, one for each combination of the variables that both have (or each value of ``over``)."""
    shared = [over] if over else [k for k in (own[0][0] if own else {}) if other and k in other[0][0]]
    first, second = _by(own, shared), _by(other, shared)
    return [mean(first[key]) - mean(second[key]) for key in first if key in second]


def _by(values: list[tuple[Variables, float]], names: list[str]) -> dict[tuple, list[float]]:
    groups: dict[tuple, list[float]] = {}
    for variables, value in values:
        groups.setdefault(tuple(variables.get(name) for name in names), []).append(value)
    return groups


# Figures


def figure_of(spec: dict[str, Any], results: Results) -> str:
    unit, where = Unit(spec["y"], spec.get("as")), spec.get("where", {})
    lines: list[Line] = []
    for entry in _listed(spec["run"]):
        runs = [(v, r) for v, r in results.entries[entry] if _agree(v, where)]
        by = spec.get("by")
        for value in dict.fromkeys(v.get(by) for v, _ in runs):
            label = entry.replace("_", " ") + (f", {by} {value}" if value is not None else "")
            chosen = [(v, r) for v, r in runs if v.get(by) == value]
            if "x" in spec:
                series = [[(v[spec["x"]], y)] for v, r in chosen if (y := r.value(spec["y"])) is not None]
            else:
                series = [r.series.get(spec["y"], []) for _, r in chosen]
            lines.append(page.spread_line(label, series, unit))
    x_label = spec.get("x_label", spec.get("x", "step").replace("_", " "))
    y_label = spec["as"] if "as" in spec else (spec["y"].partition("/")[2].replace("_", " ") + unit.words)
    return plot(
        spec.get("title", spec["y"]), [line for line in lines if line.x], x_label, y_label, spec.get("log_x", False)
    )


def groups_of(results: Results) -> list[Group]:
    """An entry's runs that are the same but for the seed, named by the variables that make the difference."""
    groups = []
    for name, runs in results.entries.items():
        variables_of = {record: variables for variables, record in runs}
        kinds = by_kind([record for _, record in runs])
        for kind in kinds:
            mine = [variables_of[record] for record in kind]
            telling = [k for k in mine[0] if len(kinds) > 1 and len({str(v[k]) for v in mine}) == 1]
            label = ", ".join([name.replace("_", " "), *(f"{key} {mine[0][key]}" for key in telling)])
            groups.append(Group(label, kind))
    return groups


# Together


def write_tables(study: dict[str, Any], entries: Mapping[str, Sequence[Planned]], path: Path, folder: Path) -> str:
    """Writes tables.md, a CSV for each table, an SVG for each figure, and report.html.

    Args:
        study: the YAML.
        entries: its runs.
        path: of the YAML.
        folder: to write to.

    Returns:
        The tables in Markdown, and where the rest is.
    """
    results = Results(entries)
    tables = [table_of(spec, results) for spec in study.get("tables") or []]
    pictures = [figure_of(spec, results) for spec in study.get("figures") or []]
    text = "\n".join(table.markdown() for table in tables)
    done, total = sum(map(len, results.entries.values())), sum(map(len, entries.values()))
    lead = f"{path.name}: {done} of {total} runs are finished. Mean ± standard deviation, unless said otherwise."
    groups = [group for group in groups_of(results) if group.records]
    parts = [table.html() for table in tables] + [page.figures(pictures)] + (page.of_groups(groups) if groups else [])
    title = path.stem.replace("_", " ").capitalize()

    def write(name: str, content: str) -> None:
        write_whole(folder / name, lambda file: file.write(content.encode()))

    write("tables.md", text)
    for number, table in enumerate(tables, start=1):
        write(f"table_{number}.csv", table.csv())
    for number, picture in enumerate(pictures, start=1):
        write(f"figure_{number}.svg", picture)
    write("report.html", page.page(title, lead, parts))
    return f"{text}\nreport: {folder / 'report.html'}"
