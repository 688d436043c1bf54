"""Line plots as SVG, drawn without a plotting library. A page with them loads nothing from the internet."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f5af0", "#6b7280")
"""Colour-blind people can distinguish most of them (Okabe & Ito 2008). Light colours are darkened for a white page."""
WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 52
LARGEST = 1e100
"""Points with larger values are not drawn: they are no measurements, and the arithmetic of the axes would overflow."""
STYLE = """<style>
.axis{stroke:#8a8f98;stroke-width:1}
.grid{stroke:#8a8f98;stroke-opacity:.22}
.words{fill:#555b66;font:13px system-ui,sans-serif}
.title{fill:#1c1f24;font:600 15px system-ui,sans-serif}
@media (prefers-color-scheme:dark){.words{fill:#b5bac4}.title{fill:#f0f2f5}}
</style>"""


@dataclass
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

    def stroke(self, default: int) -> str:
        """The SVG attributes for colour and dashes. ``default`` is used if ``place`` is None."""
        place = default if self.place is None else self.place
        dash = ' stroke-dasharray="6 3"' if place // len(COLOURS) % 2 else ""
        return f'stroke="{COLOURS[place % len(COLOURS)]}"{dash}'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count`` of them."""
    if not high > low or (high - low) / count == 0:  # the difference may be too small to divide
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from ``low`` to ``high``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**power for power in powers for factor in (1, 2, 5) if low <= factor * 10.0**power <= high]


def number(value: float) -> str:
    """A number as text: four significant digits, or whole with commas from 10,000 on."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def plot(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    log_x: bool = False,
    diagonal: bool = False,
) -> str:
    """A plot as SVG. It scales to the width of its container on the page.

    Args:
        title: the text above the plot.
        lines: the lines, drawn in this order. Points that are not finite or beyond `LARGEST` are not drawn; with
            ``log_x`` points with x <= 0 are not drawn either.
        x_label: the label of the x axis.
        y_label: the label of the y axis.
        log_x: whether the x axis is logarithmic.
        diagonal: whether both axes go from 0 to 1 and the line x = y is drawn.
    """
    drawn = [(line, [p for p in _points(line) if p[0] > 0 or not log_x]) for line in lines]
    drawn = [(line, points) for line, points in drawn if points]
    xs = [x for _, points in drawn for x, _, _ in points] or [1.0, 2.0]
    lows = [y - s for _, points in drawn for _, y, s in points] or [0.0]
    highs = [y + s for _, points in drawn for _, y, s in points] or [1.0]
    x0, x1, y0, y1 = (0.0, 1.0, 0.0, 1.0) if diagonal else (min(xs), max(xs), min(lows), max(highs))
    if x0 == x1:
        x0, x1 = (x0 / 2, x1 * 2) if log_x else (x0 - 0.5, x1 + 0.5)
    margin = 0.05 * (y1 - y0) or abs(y0) * 0.05 or 0.5
    y0, y1 = (y0, y1) if diagonal else (y0 - margin, y1 + margin)

    def across(x: float) -> float:
        share = math.log(x / x0) / math.log(x1 / x0) if log_x else (x - x0) / (x1 - x0)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    legend = [line.label for line, _ in drawn] if len(drawn) > 1 or (drawn and drawn[0][0].label) else []
    rows = _legend_rows(legend)
    height = HEIGHT + 20 * len(rows)

    floor = HEIGHT - BOTTOM

    def up(y: float) -> float:
        return floor - (y - y0) / (y1 - y0) * (floor - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">{STYLE}',
        f"<title>{html.escape(title)}</title>",
        f'<text class="title" x="{LEFT}" y="24">{html.escape(title)}</text>',
    ]
    for y in ticks(y0, y1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>')
        parts.append(f'<text class="words" x="{LEFT - 8}" y="{up(y) + 4:.1f}" text-anchor="end">{number(y)}</text>')
    few = len(set(xs)) <= 8 and (log_x or all(float(x).is_integer() for x in xs))
    for x in sorted(set(xs)) if few else log_ticks(x0, x1) if log_x else ticks(x0, x1):
        place = f"{across(x):.1f}"
        parts.append(f'<text class="words" x="{place}" y="{floor + 18}" text-anchor="middle">{number(x)}</text>')
        parts.append(f'<line class="axis" x1="{place}" x2="{place}" y1="{floor}" y2="{floor + 4}"/>')
    across_middle, middle = (LEFT + WIDTH - RIGHT) / 2, (TOP + floor) / 2
    turned = f'x="14" y="{middle}" transform="rotate(-90 14 {middle})"'
    parts += [
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>',
        f'<text class="words" x="{across_middle}" y="{HEIGHT - 12}" text-anchor="middle">{html.escape(x_label)}</text>',
        f'<text class="words" {turned} text-anchor="middle">{html.escape(y_label)}</text>',
    ]
    if diagonal:
        parts.append(
            f'<line class="axis" stroke-dasharray="4 4" x1="{across(0)}" y1="{up(0)}" x2="{across(1)}" y2="{up(1)}"/>'
        )
    for number_of_line, (line, points) in enumerate(drawn):
        stroke = line.stroke(number_of_line)
        fill = stroke.split()[0].replace("stroke", "fill")
        if any(s for _, _, s in points):
            edge = [(across(x), up(y + s)) for x, y, s in points]
            edge += [(across(x), up(y - s)) for x, y, s in reversed(points)]
            parts.append(f'<polygon points="{_joined(edge)}" {fill} fill-opacity="0.15"/>')
        path = _joined([(across(x), up(y)) for x, y, _ in points])
        parts.append(f'<polyline points="{path}" fill="none" {stroke} stroke-width="2"/>')
        if len(points) <= 20:
            for x, y, s in points:
                words = html.escape(f"{line.label}: {number(x)}, {number(y)}" + (f" ± {number(s)}" if s else ""))
                parts.append(
                    f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3.2" {fill}><title>{words}</title></circle>'
                )
    for number_of_row, row in enumerate(rows):
        y = HEIGHT + 12 + 20 * number_of_row
        for number_of_line, x in row:
            stroke = drawn[number_of_line][0].stroke(number_of_line)
            parts.append(f'<line x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}" {stroke} stroke-width="3"/>')
            parts.append(f'<text class="words" x="{x + 28}" y="{y}">{html.escape(legend[number_of_line])}</text>')
    return "".join([*parts, "</svg>"])


def _points(line: Line) -> list[tuple[float, float, float]]:
    """The points (x, y, spread) that can be drawn, sorted by x."""
    spreads = line.spread or [None] * len(line.x)
    points = zip(line.x, line.y, spreads, strict=True)
    return sorted((x, y, s if s and _can_be_drawn(s) else 0.0) for x, y, s in points if _can_be_drawn(x, y))


def _can_be_drawn(*numbers: float) -> bool:
    return all(math.isfinite(one) and abs(one) <= LARGEST for one in numbers)


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _legend_rows(labels: Sequence[str]) -> list[list[tuple[int, float]]]:
    """The layout of the legend: rows of (number of the label, x in pixels). Each row has as many labels as fit."""
    rows: list[list[tuple[int, float]]] = []
    x: float = WIDTH
    for number_of_label, label in enumerate(labels):
        width = 48 + 6.8 * len(label)
        if x + width > WIDTH:
            rows.append([])
            x = LEFT
        rows[-1].append((number_of_label, x))
        x += width
    return rows
