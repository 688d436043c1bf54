"""Plots of lines and of bars: what is in them, and how they are drawn as SVG for a paper or a README."""

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#bf5f95", "#a67808", "#2f8fcb", "#7f5af0", "#6b7280")
"""Colour-blind people can distinguish most of them (Okabe & Ito 2008). Light ones are darkened: each has a
contrast of 3 or more to white."""
LARGEST = 1e100
"""Points with larger values are not drawn: they are no measurements, and the arithmetic of the axes would overflow."""
INCHES_WIDE, INCHES_HIGH, INCHES_OF_LEGEND_ROW, INCHES_OF_BAR = 7.0, 4.2, 0.22, 0.3
LONGEST_NAMES = 40
"""Characters of the names of all bars that fit under them."""

Point = tuple[float, float, float]
"""x, y and half the height of the band at this point, which may be 0."""


@dataclass(frozen=True)
class Line:
    """One line of a plot: its label in the legend, and the coordinates of its points."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float | None] = field(default_factory=list)
    """Half the height of the band around the line at each point; None at a point without a band."""
    place: int | None = None
    """The number of its colour, from 0. It gives a line the same colour in several plots. By default it is the position
    of the line in the plot."""


@dataclass(frozen=True)
class Plot:
    """A plot of lines or of bars.

    Args:
        title: the text above the plot.
        lines: the lines, drawn in this order.
        x_label: the label of the x axis.
        y_label: the label of the y axis.
        log_x: whether the x axis is logarithmic.
        diagonal: whether both axes go from 0 to 1 and the line x = y is drawn.
        log_y: whether the y axis is logarithmic.
        bars: the names of the places 0, 1, ... on the x axis, if the lines are drawn as bars, one beside the other.
        y_from: where bars begin.
    """

    title: str
    lines: Sequence[Line]
    x_label: str
    y_label: str
    log_x: bool = False
    diagonal: bool = False
    log_y: bool = False
    bars: Sequence[str] = ()
    y_from: float = 0.0

    def points(self, line: Line) -> list[Point]:
        """The points of a line that can be drawn, sorted by x.

        Points that are not finite or beyond `LARGEST` are left out; with ``log_x``, points with x <= 0 are left out
        too, and with ``log_y`` those with y <= 0.
        """
        spreads = line.spread or [None] * len(line.x)
        points = zip(line.x, line.y, spreads, strict=True)
        drawn = ((x, y, s if s and _can_be_drawn(s) else 0.0) for x, y, s in points if _can_be_drawn(x, y))
        return sorted(p for p in drawn if (p[0] > 0 or not self.log_x) and (p[1] > 0 or not self.log_y))

    def drawn(self) -> list[tuple[Line, int, list[Point]]]:
        """The lines that have points, the number of each line's colour, and its points."""
        places = [number if line.place is None else line.place for number, line in enumerate(self.lines)]
        found = [(line, place, self.points(line)) for line, place in zip(self.lines, places, strict=True)]
        return [one for one in found if one[2]]

    @property
    def lies(self) -> bool:
        """Whether bars lie, beside their names: long ones would not fit under bars that stand."""
        return len("".join(self.bars)) > LONGEST_NAMES

    def svg(self) -> str:
        """The plot as SVG, drawn by matplotlib. The same plot always gives the same text."""
        return self.file("svg").decode()

    def file(self, kind: str) -> bytes:
        """The plot as a file, drawn by matplotlib. The same plot always gives the same file.

        Args:
            kind: "svg" or "png".
        """
        # slow to import, and only needed here
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

        drawn = self.drawn()
        labels = [_text(line.label) for line, _, _ in drawn] if len(drawn) > 1 or (drawn and drawn[0][0].label) else []
        columns = max(1, min(len(labels), 90 // (8 + max(map(len, labels), default=1))))
        rows = math.ceil(len(labels) / columns)
        # text stays text, so that it can be found and copied
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "distill", "font.family": "sans-serif"}):
            tall = INCHES_OF_BAR * len(self.bars) * (1 + 0.6 * (len(drawn) - 1)) + 1 if self.lies else INCHES_HIGH
            figure = Figure((INCHES_WIDE, tall + INCHES_OF_LEGEND_ROW * rows), layout="constrained")
            axes = figure.add_subplot()
            axes.set_title(_text(self.title), loc="left", parse_math=False)
            across, along = (self.y_label, self.x_label) if self.lies else (self.x_label, self.y_label)
            axes.set_xlabel(_text(across), parse_math=False)
            axes.set_ylabel(_text(along), parse_math=False)
            if self.log_x:
                axes.set_xscale("log")
            if self.log_y:
                axes.set_yscale("log")
            if self.diagonal:
                axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
                axes.set(xlim=(0, 1), ylim=(0, 1))
            handles: list[Any] = []
            for number_of, (_, place, points) in enumerate(drawn):
                x, y, spread = zip(*points, strict=True)
                colour, dashes = COLOURS[place % len(COLOURS)], "--" if place // len(COLOURS) % 2 else "-"
                if self.bars:
                    width = 0.8 / len(drawn)
                    at = [one - 0.4 + (number_of + 0.5) * width for one in x]
                    heights = [one - self.y_from for one in y]
                    ends = [s or float("nan") for s in spread]
                    if self.lies:
                        handles.append(axes.barh(at, heights, 0.92 * width, self.y_from, color=colour))
                        axes.errorbar(y, at, xerr=ends, fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
                    else:
                        handles.append(axes.bar(at, heights, 0.92 * width, self.y_from, color=colour))
                        axes.errorbar(at, y, ends, fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
                    continue
                marker = "o" if len(points) <= 20 else ""
                handles += axes.plot(x, y, color=colour, linestyle=dashes, marker=marker, markersize=4)
                if any(spread):
                    low, high = zip(*((v - s, v + s) for v, s in zip(y, spread, strict=True)), strict=True)
                    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            xs = sorted({x for _, _, points in drawn for x, _, _ in points})
            if self.log_x and xs:
                axes.xaxis.set_major_locator(FixedLocator(xs) if len(xs) <= 8 else LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_minor_locator(NullLocator())
            named = axes.yaxis if self.lies else axes.xaxis if self.bars else None
            if named is not None:
                names = [textwrap.fill(_text(one), 40 if self.lies else 16) for one in self.bars]
                named.set_ticks(range(len(self.bars)), names, fontsize=8)
                for tick in named.get_ticklabels():
                    tick.set_parse_math(False)
            if self.lies:
                axes.invert_yaxis()
            for axis, is_log in ((axes.xaxis, False), (axes.yaxis, self.log_y)):
                if axis is not named and not is_log:
                    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            if labels:
                legend = figure.legend(handles, labels, loc="outside lower left", ncols=columns, frameon=False)
                for text in legend.get_texts():
                    text.set_parse_math(False)
            file = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(file, format=kind, dpi=150, metadata=metadata | {"Title": _text(self.title)})
        return file.getvalue()


def number(value: float) -> str:
    """A number as text: four significant digits, or whole with commas from 10,000 to 10^15."""
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e15 else f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _can_be_drawn(*numbers: float) -> bool:
    return all(math.isfinite(one) and abs(one) <= LARGEST for one in numbers)


def _text(text: str) -> str:
    """The text as matplotlib can draw it: without characters that XML cannot hold, and without "_" in front, which
    would hide a label.
    """
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return f" {shown}" if shown.startswith("_") else shown
