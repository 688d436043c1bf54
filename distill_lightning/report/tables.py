"""Tables as Markdown, CSV and HTML, and numbers as people write them."""

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from distill_lightning.report.statistics import mean, std, t_interval

MINUS = "\N{MINUS SIGN}"


NUMBERS = ["row", "column", "mean", "std", "t95_low", "t95_high", "n", "paper"]


def numbers(values: Sequence[float]) -> list[float | str | int]:
    """Mean, standard deviation, 95 % t-interval, n; empty where there is none."""
    low, high = t_interval(values) or ("", "")
    deviation = std(values)
    return [mean(values) if values else "", "" if deviation is None else deviation, low, high, len(values)]


@dataclass
class Table:
    """Cells of text; the first column names the row."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    numbers: list[list[str | float | int]] = field(default_factory=list)
    """The cells for programs: row, column, and what ``numbers`` gives, paper."""

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        text = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        return "\n\n".join(part for part in (f"### {self.title}" if self.title else "", text, self.note) if part) + "\n"

    def csv(self) -> str:
        """A line a cell where there are numbers, else the table as it is."""
        text = io.StringIO()
        lines = [NUMBERS, *self.numbers] if self.numbers else [self.header, *self.rows]
        csv.writer(text, lineterminator="\n").writerows(lines)
        return text.getvalue()

    def html(self) -> str:
        def row(tag: str, cells: list[str]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        title = f"<h3>{html.escape(self.title)}</h3>" if self.title else ""
        note = f"<p class=note>{html.escape(self.note)}</p>" if self.note else ""
        body = "".join(row("td", cells) for cells in self.rows)
        table = f"<table><thead>{row('th', self.header)}</thead><tbody>{body}</tbody></table>"
        return f"{title}<div class=wide>{table}</div>{note}"


class Unit:
    """How a metric is written.

    Args:
        metric: its tag or name.
        written: "percent", "errors of N", "count", "seconds" or "number"; what is usual for the metric by default.
    """

    def __init__(self, metric: str, written: str | None = None) -> None:
        name = metric.rpartition("/")[2]
        if written is None:
            percent = "accuracy" in name or name in ("disagreement", "density")
            count = name in ("parameters", "steps", "exposures", "epochs")
            written = "percent" if percent else "count" if count else "seconds" if name.endswith("_s") else "number"
        errors = re.fullmatch(r"errors of (\d+)", written)
        if not errors and written not in ("percent", "count", "seconds", "number"):
            raise ValueError(f"{written}: expected percent, errors of N, count, seconds or number")
        self.total = int(errors[1]) if errors else None
        self.words = {"percent": " %", "seconds": " s"}.get(written, "")
        self.digits = {"percent": 2, "number": 3, "seconds": 0, "count": 0}.get(written, 1)
        self.factor = 100 if written == "percent" else 1

    def __call__(self, value: float) -> float:
        """The number in this unit."""
        return self.total * (1 - value) if self.total is not None else self.factor * value

    def difference(self, value: float) -> float:
        return -self.total * value if self.total is not None else self.factor * value

    def text(self, value: float) -> str:
        return f"{value:,.{self.digits}f}".replace("-", MINUS)


def spread_text(values: Sequence[float], unit: Unit, interval: bool = False) -> str:
    """ "94.29 ± 0.42", or "0.50 [0.31, 0.69]" with a 95 % interval; "" for no values."""
    if not values:
        return ""
    centre, deviation = mean(values), std(values)
    if deviation is None or (not interval and unit.text(deviation) == unit.text(0)):
        return unit.text(centre)
    if interval:
        low, high = t_interval(values)
        return f"{unit.text(centre)} [{unit.text(low)}, {unit.text(high)}]"
    return f"{unit.text(centre)} ± {unit.text(deviation)}"
