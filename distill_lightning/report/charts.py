"""Charts of groups of runs: curves, lottery tickets by density, reliability, confusion matrices."""

from collections.abc import Sequence
from dataclasses import dataclass

from distill_lightning.depth_figures import MEASURES
from distill_lightning.plots import Line, Plot
from distill_lightning.report.groups import Group
from distill_lightning.report.statistics import mean, std
from distill_lightning.report.units import Unit

FEWEST = 10
"""The smallest number of samples in a bin of a reliability diagram. The accuracy of fewer samples is too noisy."""

Points = list[tuple[float, float]]
"""The points (x, y) of a series."""


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of a group, summed over its runs.

    Args:
        label: the label of the group.
        class_names: the names of the K classes.
        counts: the number of test pictures, K rows (true class) of K (predicted class).
    """

    label: str
    class_names: Sequence[str]
    counts: Sequence[Sequence[int]]

    @property
    def total(self) -> int:
        """The number of test pictures."""
        return sum(map(sum, self.counts))

    @property
    def right(self) -> int:
        """The number of test pictures that are predicted correctly."""
        return sum(row[number] for number, row in enumerate(self.counts))

    def most_confused(self, number: int) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: true class, predicted class and number of pictures.

        Args:
            number: how many.
        """
        found = [
            (self.class_names[true], self.class_names[predicted], count)
            for true, row in enumerate(self.counts)
            for predicted, count in enumerate(row)
            if count and predicted != true
        ]
        return sorted(found, key=lambda mistake: -mistake[2])[:number]


def curve(tag: str, groups: Sequence[Group]) -> Plot:
    """A plot of a metric against the step."""
    unit = Unit(tag)
    lines = [
        spread_line(group.label, [record.series.get(tag, []) for record in group.records], unit, place)
        for place, group in enumerate(groups)
    ]
    x_label = "members" if tag.endswith("by_members") else "step"
    return Plot(tag, [line for line in lines if len(line.x) > 1], x_label, tag + unit.words)


def by_depth(name: str, first: bool, groups: Sequence[Group]) -> Plot:
    """A plot of what was measured in each layer against the number of the layer; the mean over the runs of a group.

    Args:
        name: a measure of ``depth_figures.MEASURES``.
        first: whether the first measurement is shown, not the last.
        groups: the groups. Runs of a group that have another number of layers than the first one that was measured
            are left out.
    """
    prefix, lines = f"train/{name}/", []
    for place, group in enumerate(groups):
        runs = [
            [points[0 if first else -1][1] for tag, points in record.series.items() if tag.startswith(prefix)]
            for record in group.records
        ]
        measured = [run for run in runs if run]
        alike = [run for run in measured if len(run) == len(measured[0])]
        values = [mean(layer) for layer in zip(*alike, strict=True)]
        lines.append(Line(group.label, list(range(1, len(values) + 1)), values, place=place))
    title = "First measurement" if first else "Last measurement"
    log_y = name != "dead_units"
    return Plot(title, [line for line in lines if line.x], "layer, from the input", MEASURES[name], log_y=log_y)


def by_density(key: str, groups: Sequence[Group]) -> Plot:
    """A plot of a metric of the rounds of lottery tickets against the density."""
    unit = Unit(key)
    lines = [
        spread_line(group.label, [record.by_density(key) for record in group.records], unit, place)
        for place, group in enumerate(groups)
    ]
    words = key.replace("_", " ")
    return Plot(
        words.capitalize(),
        [line for line in lines if line.x],
        "weights left, %",
        words.capitalize() + unit.words,
        log_x=True,
    )


def spread_line(label: str, series: Sequence[Points], unit: Unit, place: int | None = None) -> Line:
    """A line through the mean of several series at each x, with their standard deviation.

    Args:
        label: the label of the line.
        series: the points of each run.
        unit: the unit of y.
        place: the number that decides the line's colour and dashes; None lets the plot choose.
    """
    at: dict[float, list[float]] = {}
    for points in series:
        for x, y in points:
            at.setdefault(x, []).append(unit(y))
    xs = sorted(at)
    return Line(label, xs, [mean(at[x]) for x in xs], [std(at[x]) for x in xs], place)


def reliability(groups: Sequence[Group]) -> Plot:
    """A reliability diagram: accuracy against confidence (Guo et al. 2017, figure 1), test samples of all seeds."""
    lines = []
    for place, group in enumerate(groups):
        tables = [record.summary["calibration"] for record in group.records if record.summary.get("calibration")]
        if not tables:
            continue
        size = len(tables[0]["count"])  # a table with another number of bins cannot be added to the first one
        tables = [table for table in tables if len(table["count"]) == size]
        count, confidence, right = (
            [sum(values) for values in zip(*(table[key] for table in tables), strict=True)]
            for key in ("count", "confidence", "right")
        )
        bins = [number for number, samples in enumerate(count) if samples >= FEWEST]
        x, y = ([values[number] / count[number] for number in bins] for values in (confidence, right))
        lines.append(Line(group.label, x, y, place=place))
    return Plot("Reliability on the test split", lines, "confidence", "accuracy", diagonal=True)


def confusion(group: Group) -> Confusion | None:
    """The confusion matrix of a group, over all runs with the classes of the first; None if no run has one."""
    found = [record.confusion for record in group.records if record.confusion[0]]
    if not found:
        return None
    names = found[0][0]
    matrices = [counts for of_run, counts in found if of_run == names]
    total = [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]
    return Confusion(group.label, names, total)
