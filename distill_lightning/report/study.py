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
      - {title: ..., run: search, y: test_accuracy, x: density}         # against the rounds of lottery tickets

rounds/7/test_accuracy is the metric of a round. Figures call an entry what a row of the tables calls it.

The spread of a cell is that over all runs of its entry that its row and column leave. Cells of runs that are not there
are empty.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from distill_lightning.errors import InputError, nearest
from distill_lightning.files import write_whole
from distill_lightning.plots import Line, plot
from distill_lightning.report import page
from distill_lightning.report.records import Group, Record, by_kind
from distill_lightning.report.statistics import mean
from distill_lightning.report.tables import Table, Unit, numbers, spread_text

TABLE = {"title": str, "rows": list, "columns": list, "over": str, "spread": str, "note": str}
ROW = {"run": str, "label": str, "where": dict, "paper": str | int | float, "minus": str}
COLUMN = {"metric": str, "label": str, "where": dict, "as": str}
FIGURE = {
    "title": str, "run": str | list, "y": str, "x": str, "by": str, "where": dict, "log_x": bool, "x_label": str,
    "as": str,
}  # fmt: skip
"""What may be said, and of what kind it is."""
NUMBERS = ("wall_time_s", "steps", "epochs", "exposures", "parameters", "density", "seed", "processes", "threads")
METRICS = [f"{split}/{name}" for split in ("test", "val") for name in ("accuracy", "accuracy_top5", "nll", "ece")]
Variables = dict[str, Any]


class Planned(Protocol):
    """What a study says of a run."""

    entry: str
    variables: Variables
    folder: Path


class Results:
    """What the runs of a study came to: records by entry, with their variables."""

    def __init__(self, entries: Mapping[str, Sequence[Planned]], tables: Sequence[dict[str, Any]] = ()) -> None:
        self.labels = {entry: entry.replace("_", " ") for entry in entries} | _labels(tables)
        self.entries = {
            name: [(run.variables, Record(run.folder)) for run in runs if (run.folder / "summary.json").is_file()]
            for name, runs in entries.items()
        }

    def values(self, entry: str, where: Variables, metric: str) -> list[tuple[Variables, float]]:
        found = [(v, record.value(metric)) for v, record in self.entries[entry] if _agree(v, where)]
        return [(variables, value) for variables, value in found if value is not None]


def _labels(tables: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What tables call whole entries, the first table first."""
    rows = [row for table in tables for row in table["rows"] if not {"minus", "where"} & row.keys()]
    return {row["run"]: row["label"] for row in reversed(rows) if "label" in row and "{" not in row["label"]}


def _agree(variables: Variables, where: Variables) -> bool:
    return all(variables.get(key) == value for key, value in where.items() if key in variables)


# Checking, before anything is run


class Check:
    """Refuses a study whose tables and figures could not be made: InputError, in one line.

    Args:
        path: of the YAML.
        variables: of each run of each entry.
    """

    def __init__(self, path: Path, variables: dict[str, list[Variables]]) -> None:
        self.path, self.variables = path, variables

    def study(self, study: dict[str, Any]) -> None:
        for part, check in (("tables", self.table), ("figures", self.figure)):
            if not isinstance(study.get(part) or [], list):
                self.refuse(f"{part} is {study[part]}: expected a list")
            for given in study.get(part) or []:
                check(given, f'the {part[:-1]} "{given.get("title", "")}"' if isinstance(given, dict) else part)

    def refuse(self, words: str) -> NoReturn:
        raise InputError(f"{self.path}: {words}")

    def table(self, table: Any, where: str) -> None:
        self.keys(table, TABLE, where)
        if not table.get("rows") or not table.get("columns"):
            self.refuse(f"{where} needs rows and columns")
        if table.get("spread", "std") not in ("std", "interval"):
            self.refuse(f"{where}: spread is {table['spread']}: expected std or interval")
        for row in table["rows"]:
            self.keys(row, ROW, f"a row of {where}")
            entries = [row.get("run"), *([row["minus"]] if "minus" in row else [])]
            self.entries(entries, where)
            self.of_variables(row, entries[:1], where)
            for entry in entries if "over" in table else []:
                self.known(table["over"], entry, where)
        entries = [row["run"] for row in table["rows"]]
        for column in table["columns"]:
            if isinstance(column, str):
                self.metric(column, where)
            else:
                self.keys(column, COLUMN, f"a column of {where}")
                if "metric" not in column:
                    self.refuse(f"a column of {where} has no metric")
                self.metric(column["metric"], where)
                self.of_variables(column, entries, where)
                self.unit(column["metric"], column.get("as"), where)

    def metric(self, name: str, where: str) -> None:
        """What looks like another is one mistyped, which would be seen when all has been run."""
        if "/" not in name and name not in NUMBERS and (meant := nearest(name, [*NUMBERS, *METRICS])):
            self.refuse(f"{where}: there is no metric {name}{meant}")

    def figure(self, figure: Any, where: str) -> None:
        self.keys(figure, FIGURE, where)
        if "y" not in figure:
            self.refuse(f"{where} has no y")
        entries = _listed(figure.get("run"))
        self.entries(entries, where)
        self.of_variables(figure, entries, where)
        self.unit(figure["y"], figure.get("as"), where)
        if "by" in figure:
            self.some(figure["by"], entries, where)
        for entry in entries if figure.get("x", "density") != "density" else []:
            self.known(figure["x"], entry, where)
            for x in (run[figure["x"]] for run in self.variables[entry]):
                if not isinstance(x, int | float) or (figure.get("log_x") and x <= 0):
                    self.refuse(
                        f"{where} has {figure['x']} on its axis, which may be {x}: expected numbers it can show"
                    )

    def keys(self, given: Any, known: dict[str, Any], where: str) -> None:
        if not isinstance(given, dict):
            self.refuse(f"{where} is {given}: expected {', '.join(known)}")
        for key, value in given.items():
            if key not in known:
                self.refuse(f"{where} has an unknown key {key}{nearest(str(key), known)}")
            if not isinstance(value, known[key]):
                self.refuse(f"{where}: {key} is {value}: expected {getattr(known[key], '__name__', known[key])}")

    def entries(self, names: list[Any], where: str) -> None:
        for name in names:
            if name not in self.variables:
                self.refuse(f"{where} has an unknown run {name}{nearest(str(name), self.variables)}")

    def known(self, variable: str, entry: str, where: str) -> None:
        if not all(variable in run for run in self.variables[entry]):
            self.refuse(f"{where} names the variable {variable}, which {entry} has not")

    def some(self, variable: str, entries: list[str], where: str) -> list[Any]:
        values = [run[variable] for entry in entries for run in self.variables[entry] if variable in run]
        if not values:
            self.refuse(f"{where} names the variable {variable}, which {' and '.join(dict.fromkeys(entries))} has not")
        return values

    def of_variables(self, given: dict[str, Any], entries: list[str], where: str) -> None:
        for name in re.findall(r"\{(\w+)\}", given.get("label", "")):
            self.some(name, entries, where)
        for name, value in given.get("where", {}).items():
            if value not in (values := self.some(name, entries, where)):
                self.refuse(f"{where}: {name} is never {value}: it is one of {sorted({repr(v) for v in values})}")

    def unit(self, metric: str, written: str | None, where: str) -> None:
        try:
            Unit(metric, written)
        except ValueError as error:
            self.refuse(f"{where}: as is {error}")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# Tables


def table_of(spec: dict[str, Any], results: Results) -> Table:
    rows = [row for given in spec["rows"] for row in _expanded(given, [given["run"]], results)]
    entries = list(dict.fromkeys(row["run"] for row in rows))
    columns = [{"metric": column} if isinstance(column, str) else column for column in spec["columns"]]
    columns = [column for given in columns for column in _expanded(given, entries, results)]
    units = [Unit(column["metric"], column.get("as")) for column in columns]
    names = [
        column.get("label", page.LABELS.get(column["metric"], column["metric"] + (unit.words and f",{unit.words}")))
        for column, unit in zip(columns, units, strict=True)
    ]
    papers = any("paper" in row for row in rows)
    table = Table(spec.get("title", ""), ["", *names, *(["paper"] if papers else []), "n"], [], spec.get("note", ""))
    for row in rows:
        label, paper = row.get("label", row["run"]), str(row.get("paper", ""))
        cells = [_values(spec, row, column, unit, results) for column, unit in zip(columns, units, strict=True)]
        texts = [_text(spec, row, values, unit) for values, unit in zip(cells, units, strict=True)]
        count = max(map(len, cells), default=0)
        table.rows.append([label, *texts, *([paper] if papers else []), str(count)])
        table.numbers += [[label, name, *numbers(values), paper] for name, values in zip(names, cells, strict=True)]
    return table


def _expanded(given: dict[str, Any], entries: list[str], results: Results) -> list[dict[str, Any]]:
    """One for each combination of the values of the variables that its label names."""
    names = re.findall(r"\{(\w+)\}", given.get("label", ""))
    where = given.get("where", {})
    found = [variables for entry in entries for variables, _ in results.entries[entry] if _agree(variables, where)]
    found = [{name: variables[name] for name in names} for variables in found if variables.keys() >= set(names)]
    expanded = []
    for values in {repr(values): values for values in found}.values() if names else [{}]:
        label = given.get("label")
        for name, value in values.items():
            label = label.replace("{" + name + "}", str(value))
        expanded.append(given | ({"label": label} if label is not None else {}) | {"where": where | values})
    return expanded


def _values(spec: dict, row: dict, column: dict, unit: Unit, results: Results) -> list[float]:
    """What a cell is the mean of."""
    where = row.get("where", {}) | column.get("where", {})
    own = results.values(row["run"], where, column["metric"])
    over = spec.get("over")
    if "minus" in row:
        other = results.values(row["minus"], where, column["metric"])
        return [unit.difference(d) for d in paired(own, other, over)]
    if over:
        return [unit(mean(group)) for group in _by(own, [over]).values()]
    return [unit(value) for _, value in own]


def _text(spec: dict, row: dict, values: list[float], unit: Unit) -> str:
    text = spread_text(values, unit, spec.get("spread") == "interval")
    positive = "minus" in row and values and mean(values) > 0 and unit.text(mean(values)) != unit.text(0)
    return f"+{text}" if positive else text


def paired(own: list[tuple[Variables, float]], other: list[tuple[Variables, float]], over: str | None) -> list[float]:
    """Differences of means, one for each combination of the variables that both have; then, of these, the mean for
    each value of ``over``."""
    shared = [k for k in (own[0][0] if own else {}) if other and k in other[0][0]]
    first, second = _by(own, shared), _by(other, shared)
    pairs = {key: mean(first[key]) - mean(second[key]) for key in first if key in second}
    if over is None:
        return list(pairs.values())
    place = shared.index(over) if pairs else 0
    by: dict[str, list[float]] = {}
    for key, difference in pairs.items():
        by.setdefault(key[place], []).append(difference)
    return [mean(differences) for differences in by.values()]


def _by(values: list[tuple[Variables, float]], names: list[str]) -> dict[tuple[str, ...], list[float]]:
    groups: dict[tuple[str, ...], list[float]] = {}
    for variables, value in values:
        groups.setdefault(tuple(repr(variables.get(name)) for name in names), []).append(value)
    return groups


# Figures


def figure_of(spec: dict[str, Any], results: Results) -> str:
    unit, where = Unit(spec["y"], spec.get("as")), spec.get("where", {})
    lines: list[Line] = []
    for entry in _listed(spec["run"]):
        runs = [(v, r) for v, r in results.entries[entry] if _agree(v, where)]
        by = spec.get("by")
        for value in {repr(v.get(by)): v.get(by) for v, _ in runs}.values():
            label = results.labels[entry] + (f", {by} {value}" if value is not None else "")
            chosen = [(v, r) for v, r in runs if v.get(by) == value]
            if spec.get("x") == "density":
                series = [r.by_density(spec["y"]) for _, r in chosen]
            elif "x" in spec:
                series = [[(v[spec["x"]], y)] for v, r in chosen if (y := r.value(spec["y"])) is not None]
            else:
                series = [r.series.get(spec["y"], []) for _, r in chosen]
            lines.append(page.spread_line(label, series, unit))
    x_label = spec.get("x_label", spec.get("x", "step").replace("_", " "))
    x_label = "weights left, %" if x_label == "density" else x_label
    y_label = spec["as"] if "as" in spec else (spec["y"].rpartition("/")[2].replace("_", " ") + unit.words)
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
            label = ", ".join([results.labels[name], *(f"{key} {mine[0][key]}" for key in telling)])
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
    results = Results(entries, study.get("tables") or ())
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

    empty = [
        f"no run has {name}"
        for table in tables
        for name in dict.fromkeys(row[1] for row in table.numbers)
        if done and not any(row[-2] for row in table.numbers if row[1] == name)
    ]
    write("tables.md", text)
    for number, table in enumerate(tables, start=1):
        write(f"table_{number}.csv", table.csv())
    for number, picture in enumerate(pictures, start=1):
        write(f"figure_{number}.svg", picture)
    write("report.html", page.page(title, lead, parts))
    return "\n".join([text, *empty, f"report: {folder / 'report.html'}"])
