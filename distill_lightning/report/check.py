"""Checks the tables and figures of a study before its runs are trained, and makes their specifications."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from distill_lightning.errors import InputError, nearest
from distill_lightning.report.specification import Column, FigureSpec, Row, TableSpec, Variables
from distill_lightning.report.units import Unit

TABLE = {"title": str, "rows": list, "columns": list, "over": str, "spread": str, "note": str}
ROW = {"run": str, "label": str, "where": dict, "paper": str | int | float, "minus": str}
COLUMN = {"metric": str, "label": str, "where": dict, "as": str}
FIGURE = {
    "title": str, "run": str | list, "y": str, "x": str, "by": str, "where": dict, "log_x": bool, "log_y": bool,
    "x_label": str, "as": str, "bars": dict, "y_from": int | float,
}  # fmt: skip
"""The keys of a figure and the types of their values; above, those of a table, a row and a column."""
NUMBERS = ("wall_time_s", "steps", "epochs", "exposures", "parameters", "density", "seed", "processes", "threads")
"""Numbers of summary.json that a table may show."""
METRICS = [f"{split}/{name}" for split in ("test", "val") for name in ("accuracy", "accuracy_top5", "nll", "ece")]


class SpecChecker:
    """Makes specifications from YAML, and refuses tables and figures that could not be built.

    Args:
        path: the study's YAML, for errors.
        variables: the variables of each run, by entry.
    """

    def __init__(self, path: Path, variables: Mapping[str, Sequence[Variables]]) -> None:
        self.path, self.variables = path, variables

    def tables(self, given: Any) -> tuple[TableSpec, ...]:
        """The specifications of tables.

        Args:
            given: the value of the key ``tables`` of the study.

        Raises:
            InputError: a table is wrong. The message names the first mistake.
        """
        return tuple(self._table(one, _title("table", one)) for one in self._list(given, "tables"))

    def figures(self, given: Any) -> tuple[FigureSpec, ...]:
        """The specifications of figures.

        Args:
            given: the value of the key ``figures`` of the study.

        Raises:
            InputError: a figure is wrong. The message names the first mistake.
        """
        return tuple(self._figure(one, _title("figure", one)) for one in self._list(given, "figures"))

    def _table(self, table: Any, where: str) -> TableSpec:
        self._check_keys(table, TABLE, where)
        if not table.get("rows") or not table.get("columns"):
            self._refuse(f"{where} needs rows and columns")
        if (spread := table.get("spread", "std")) not in ("std", "interval"):
            self._refuse(f"{where}: spread is {spread}: expected std or interval")
        rows = tuple(self._row(row, table.get("over"), where) for row in table["rows"])
        columns = tuple(self._column(column, [row.run for row in rows], where) for column in table["columns"])
        return TableSpec(table.get("title", ""), rows, columns, table.get("over"), spread, table.get("note", ""))

    def _row(self, row: Any, over: str | None, where: str) -> Row:
        self._check_keys(row, ROW, f"a row of {where}")
        entries = [row.get("run"), *([row["minus"]] if "minus" in row else [])]
        self._check_entries(entries, where)
        self._check_variables(row, entries[:1], where)
        for entry in entries if over is not None else []:
            self._check_all_have(str(over), entry, where)
        paper = str(row["paper"]) if "paper" in row else None
        return Row(row["run"], row.get("label"), row.get("where"), paper, row.get("minus"))

    def _column(self, column: Any, entries: list[str], where: str) -> Column:
        if isinstance(column, str):
            column = {"metric": column}
        self._check_keys(column, COLUMN, f"a column of {where}")
        if "metric" not in column:
            self._refuse(f"a column of {where} has no metric")
        self._check_metric(column["metric"], where)
        self._check_variables(column, entries, where)
        self._check_unit(column["metric"], column.get("as"), where)
        return Column(column["metric"], column.get("label"), column.get("where"), column.get("as"))

    def _figure(self, figure: Any, where: str) -> FigureSpec:
        self._check_keys(figure, FIGURE, where)
        if "y" not in figure:
            self._refuse(f"{where} has no y")
        entries = figure["run"] if isinstance(figure.get("run"), list) else [figure.get("run")]
        self._check_entries(entries, where)
        self._check_variables(figure, entries, where)
        bars = {str(metric): str(label) for metric, label in figure.get("bars", {}).items()}
        for metric in bars:
            self._check_metric(metric, where)
        if bars and (unfit := next((key for key in ("x", "by", "log_x", "log_y") if key in figure), None)):
            self._refuse(f"{where} has bars and {unfit}: bars stand side by side, leave {unfit} out")
        self._check_unit(next(iter(bars), figure["y"]), figure.get("as"), where)
        if "by" in figure:
            self._values_of(figure["by"], entries, where)
        for entry in entries if figure.get("x", "density") not in ("density", "layer") else []:
            self._check_axis(figure["x"], entry, bool(figure.get("log_x")), where)
        return FigureSpec(
            title=figure.get("title", figure["y"]),
            runs=tuple(entries),
            y=figure["y"],
            x=figure.get("x"),
            by=figure.get("by"),
            where=figure.get("where"),
            log_x=figure.get("log_x", False),
            log_y=figure.get("log_y", False),
            x_label=figure.get("x_label"),
            written_as=figure.get("as"),
            bars=tuple(bars.items()),
            y_from=figure.get("y_from", 0.0),
        )

    def _refuse(self, words: str) -> NoReturn:
        raise InputError(f"{self.path}: {words}")

    def _list(self, given: Any, key: str) -> list[Any]:
        if not isinstance(given or [], list):
            self._refuse(f"{key} is {given}: expected a list")
        return given or []

    def _check_keys(self, given: Any, known: Mapping[str, Any], where: str) -> None:
        if not isinstance(given, dict):
            self._refuse(f"{where} is {given}: expected {', '.join(known)}")
        for key, value in given.items():
            if key not in known:
                self._refuse(f"{where} has an unknown key {key}{nearest(str(key), known)}")
            if not isinstance(value, known[key]):
                self._refuse(f"{where}: {key} is {value}: expected {getattr(known[key], '__name__', known[key])}")

    def _check_entries(self, names: list[Any], where: str) -> None:
        for name in names:
            if not isinstance(name, str) or name not in self.variables:
                self._refuse(f"{where} has an unknown run {name}{nearest(str(name), self.variables)}")

    def _check_metric(self, name: str, where: str) -> None:
        """Refuses a name that is similar to a known one. Otherwise the mistake would be found only after all
        training.
        """
        if "/" not in name and name not in NUMBERS and (meant := nearest(name, [*NUMBERS, *METRICS])):
            self._refuse(f"{where}: there is no metric {name}{meant}")
        if name.startswith("rounds/") and not re.fullmatch(r"rounds/\d+/.+", name):
            self._refuse(f"{where}: there is no metric {name}: give a round and its metric, as rounds/7/test_accuracy")

    def _check_unit(self, metric: str, written_as: str | None, where: str) -> None:
        try:
            Unit(metric, written_as)
        except ValueError as error:
            self._refuse(f"{where}: as is {error}")

    def _check_all_have(self, variable: str, entry: str, where: str) -> None:
        if not all(variable in run for run in self.variables[entry]):
            self._refuse(f"{where} names the variable {variable}, which {entry} does not have")

    def _check_axis(self, variable: str, entry: str, log_x: bool, where: str) -> None:
        self._check_all_have(variable, entry, where)
        for x in (run[variable] for run in self.variables[entry]):
            if not isinstance(x, int | float) or (log_x and x <= 0):
                self._refuse(f"{where} has {variable} on its axis, which may be {x}: expected numbers it can show")

    def _check_variables(self, given: dict[str, Any], entries: list[str], where: str) -> None:
        """Checks the variables that ``label`` and ``where`` name."""
        for name in re.findall(r"\{(\w+)\}", given.get("label", "")):
            self._values_of(name, entries, where)
        for name, value in given.get("where", {}).items():
            if value not in (values := self._values_of(name, entries, where)):
                self._refuse(f"{where}: {name} is never {value}: it is one of {sorted({repr(v) for v in values})}")

    def _values_of(self, variable: str, entries: list[str], where: str) -> list[Any]:
        values = [run[variable] for entry in entries for run in self.variables[entry] if variable in run]
        if not values:
            names = " and ".join(dict.fromkeys(entries))
            self._refuse(f"{where} names the variable {variable}, which {names} does not have")
        return values


def _title(part: str, given: Any) -> str:
    """The name of a table or a figure in an error message."""
    return f'the {part} "{given.get("title", "")}"' if isinstance(given, dict) else f"{part}s"
