"""The tables and figures of a study, as its YAML describes them.

    tables:
      - title: Temperature
        rows:                                     # one row for each entry, or each value of the variables in its label
          - {run: student, label: "T = {temperature}", where: {units: 800}, paper: 74}
          - {run: student, minus: teacher, label: student - teacher}       # differences, paired by shared variables
        columns:                                  # metrics, or numbers of the summary
          - test/nll
          - {metric: test/accuracy, as: errors of 10000, label: errors, where: {units: 30}}
        over: repetition                          # first take the mean for each value of this variable
        spread: interval                          # the 95 % t-interval of the mean, instead of the standard deviation
        note: text below
    figures:
      - {title: ..., run: [student, plain], y: val/accuracy}                          # a curve against the step
      - {title: ..., run: student, y: test/accuracy, x: temperature, by: units, log_x: true}   # against a variable
      - {title: ..., run: search, y: test_accuracy, x: density}         # against the rounds of lottery tickets
      - {title: ..., run: deep, y: train/gradient_norm, x: layer, log_y: true}   # the first value of train/.../LAYER
      - {title: ..., run: [student, plain], y: accuracy, bars: {test/accuracy: test, val/accuracy: validation}}
                                                  # a group of bars for each entry; y is the label of their axis

``rounds/7/test_accuracy`` is the metric of one round. Figures use the label that a row of a table gives to an entry.

A cell shows the mean and the spread over all runs of its entry that have the values in ``where`` of its row and of its
column. A cell without runs is empty.
"""

from dataclasses import dataclass
from typing import Any, Literal

Variables = dict[str, Any]
"""The values of a run's variables, by name."""


@dataclass(frozen=True)
class Row:
    """A row, or several: one for each combination of the variables that its label names in braces."""

    run: str
    """The entry whose runs the row shows."""
    label: str | None = None
    where: Variables | None = None
    """The row shows only runs whose variables have these values."""
    paper: str | None = None
    """The paper's number."""
    minus: str | None = None
    """The entry that is subtracted."""


@dataclass(frozen=True)
class Column:
    """A column, or several: one for each combination of the variables that its label names in braces."""

    metric: str
    label: str | None = None
    where: Variables | None = None
    written_as: str | None = None
    """The unit, see `distill_lightning.report.units.Unit`; None for the usual one."""


@dataclass(frozen=True)
class TableSpec:
    """A table. See the top of this file."""

    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    over: str | None = None
    spread: Literal["std", "interval"] = "std"
    note: str = ""


@dataclass(frozen=True)
class FigureSpec:
    """A figure. See the top of this file."""

    title: str
    runs: tuple[str, ...]
    """The entries whose runs the figure shows."""
    y: str
    x: str | None = None
    """A variable, "density", "layer", or None for the step."""
    by: str | None = None
    """The variable that has a line for each of its values."""
    where: Variables | None = None
    log_x: bool = False
    log_y: bool = False
    x_label: str | None = None
    written_as: str | None = None
    """The unit of y, see `distill_lightning.report.units.Unit`; None for the usual one."""
    bars: tuple[tuple[str, str], ...] = ()
    """The metrics and their labels, if the figure shows a bar for each metric of each entry instead of lines."""
    y_from: float = 0.0
    """Where bars begin, in the unit of y."""
