"""Builds a figure of a study from its specification and the results."""

from collections.abc import Sequence
from typing import Any

from distill_lightning.plots import Line, Plot
from distill_lightning.report.charts import Points, spread_line
from distill_lightning.report.results import Result, Results
from distill_lightning.report.specification import FigureSpec
from distill_lightning.report.units import Unit


def build_figure(spec: FigureSpec, results: Results) -> Plot:
    """The figure: a line for each entry, or for each value of ``by`` of each entry; or bars."""
    if spec.bars:
        return _bars(spec, results)
    unit = Unit(spec.y, spec.written_as)
    lines: list[Line] = []
    for entry in spec.runs:
        for value, chosen in _by_value(results.select(entry, spec.where), spec.by):
            label = results.labels[entry] + (f", {spec.by} {value}" if value is not None else "")
            lines.append(spread_line(label, [_points(spec, result) for result in chosen], unit))
    x_label = (spec.x or "step").replace("_", " ") if spec.x_label is None else spec.x_label
    x_label = {"density": "weights left, %", "layer": "layer, from the input"}.get(x_label, x_label)
    y_label = spec.y.rpartition("/")[2].replace("_", " ") + unit.words if spec.written_as is None else spec.written_as
    return Plot(spec.title, [line for line in lines if line.x], x_label, y_label, spec.log_x, log_y=spec.log_y)


def _bars(spec: FigureSpec, results: Results) -> Plot:
    """A group of bars for each entry, with a bar for each metric: the mean over the entry's runs, and its spread."""
    lines, unit = [], Unit(spec.bars[0][0], spec.written_as)
    for metric, label in spec.bars:
        at = [
            [(float(place), value) for _, value in results.values(entry, spec.where, metric)]
            for place, entry in enumerate(spec.runs)
        ]
        lines.append(spread_line(label if len(spec.bars) > 1 else "", at_each_run(at), unit))
    names = [results.labels[entry] for entry in spec.runs]
    label = spec.y + unit.words if spec.written_as is None else spec.y
    shown = [line for line in lines if line.x]
    return Plot(spec.title, shown, spec.x_label or "", label, bars=names, y_from=spec.y_from)


def at_each_run(at: Sequence[Points]) -> list[Points]:
    """The points of several places as series with one point each, which `spread_line` puts together by place."""
    return [[point] for points in at for point in points]


def _by_value(results: Sequence[Result], variable: str | None) -> list[tuple[Any, list[Result]]]:
    """The results with each value of a variable; all results under None if there is no variable."""
    values = [None if variable is None else result.variables.get(variable) for result in results]
    distinct = {repr(value): value for value in values}.values()
    return [(one, [r for r, value in zip(results, values, strict=True) if value == one]) for one in distinct]


def _points(spec: FigureSpec, result: Result) -> Points:
    """The points (x, y) of one run."""
    if spec.x == "density":
        return result.record.by_density(spec.y)
    if spec.x == "layer":
        of_layers = [points for tag, points in result.record.series.items() if tag.startswith(f"{spec.y}/")]
        return [(place, points[0][1]) for place, points in enumerate(of_layers, start=1)]
    if spec.x is None:
        return result.record.series.get(spec.y, [])
    y = result.record.value(spec.y)
    return [] if y is None else [(result.variables[spec.x], y)]
