"""Charts as a page shows them: plain data for the page's script, and a description in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_lightning.plots import Plot, Point, number
from distill_lightning.report.charts import Confusion

MOST_POINTS = 1000
"""The largest number of points of a line. Of longer lines, points at equal distances are shown."""
MOST_CLASSES = 40
"""The largest number of classes of a confusion matrix that is drawn."""

Legend = Sequence[tuple[str, int, str]]
"""The letter, the number of the colour and the label of each line."""


@dataclass(frozen=True)
class Chart:
    """A chart on the page.

    Args:
        id: its place in the page.
        title: the heading.
        description: what the chart shows, in words.
        data: plain data, which the page's script draws.
        own_legend: its lines; empty if the part of the page has a legend for all charts.
        choices: the names of the matrices of a confusion matrix.
    """

    id: str
    title: str
    description: str
    data: dict[str, Any]
    own_legend: Legend = ()
    choices: Sequence[str] = ()


def line_chart(identity: str, plot: Plot, scope: str, letters: Mapping[int, str]) -> Chart:
    """A chart of lines.

    Args:
        identity: its place in the page.
        plot: the lines.
        scope: the part of the page whose legend shows and hides the lines.
        letters: the letter of each line, by the number of its colour.
    """
    drawn = [(line, place, _thinned(points)) for line, place, points in plot.drawn()]
    lines = [
        {
            "key": letters.get(place, ""),
            "label": line.label,
            "place": place,
            "x": [x for x, _, _ in points],
            "y": [y for _, y, _ in points],
            "spread": [spread for _, _, spread in points],
        }
        for line, place, points in drawn
    ]
    last = "; ".join(f"{letters.get(p, '')} {line.label}: {number(points[-1][1])}" for line, p, points in drawn)
    data: dict[str, Any] = {"kind": "lines", "id": identity, "scope": scope, "lines": lines}
    data |= {"x_label": plot.x_label, "log_x": plot.log_x, "log_y": plot.log_y, "diagonal": plot.diagonal}
    if plot.bars:
        data |= {"bars": list(plot.bars), "y_from": plot.y_from, "lies": plot.lies}
    # the axis has no label of its own, so that the chart has more room on a phone
    title = plot.y_label if plot.y_label.lower().startswith(plot.title.lower()) else f"{plot.title}: {plot.y_label}"
    if plot.bars:
        values = "; ".join(
            f"{line.label or plot.y_label}: " + ", ".join(f"{plot.bars[int(x)]} {number(y)}" for x, y, _ in points)
            for line, _, points in drawn
        )
        return Chart(identity, title, f"Bars of {plot.y_label}. {values}.", data)
    return Chart(identity, title, f"Lines of {plot.y_label} against {plot.x_label}. Last values: {last}.", data)


def figure(identity: str, plot: Plot) -> Chart:
    """A chart with a legend of its own; bars of one metric need none."""
    chart = line_chart(identity, plot, identity, {})
    legend = [("", place, line.label) for line, place, _ in plot.drawn() if line.label]
    return Chart(identity, chart.title, chart.description, chart.data, legend)


def confusion_chart(identity: str, matrices: Sequence[Confusion]) -> Chart | None:
    """A chart that shows one of several confusion matrices, those with the classes of the first one.

    Returns:
        The chart; None if there is no matrix, or too many classes.
    """
    if not matrices or len(matrices[0].class_names) > MOST_CLASSES:
        return None
    names = list(matrices[0].class_names)
    alike = [matrix for matrix in matrices if list(matrix.class_names) == names]
    words = "; ".join(f"{matrix.label}: {matrix.right} of {matrix.total} pictures are right" for matrix in alike)
    data: dict[str, Any] = {"kind": "confusion", "id": identity, "scope": identity, "classes": names}
    data["matrices"] = [{"counts": matrix.counts} for matrix in alike]
    title = "Confusion matrix, test pictures of all seeds"
    description = f"Confusion matrix of {len(names)} classes. {words}."
    return Chart(identity, title, description, data, choices=[matrix.label for matrix in alike])


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most MOST_POINTS of the points, with the first and the last."""
    if len(points) <= MOST_POINTS:
        return points
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(place * step)] for place in range(MOST_POINTS)]
