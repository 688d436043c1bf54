"""Tables as Markdown, CSV and HTML."""

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from distill_lightning.report.statistics import mean, std, t_interval

NUMBERS = ["row", "column", "mean", "std", "t95_low", "t95_high", "n", "paper"]
"""The columns of a table's CSV file."""


def numbers(values: Sequence[float]) -> list[str | float | int]:
    """Mean, standard deviation, both ends of the 95 % t-interval, n; "" for each that does not exist."""
    low, high = t_interval(values) or ("", "")
    deviation = std(values)
    return [mean(values) if values else "", "" if deviation is None else deviation, low, high, len(values)]


@dataclass
class Table:
    """A table of texts. The first column names the row."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    numbers: list[list[str | float | int]] = field(default_factory=list)
    """The numbers of each cell for the CSV file, if any: row, column, the values of `numbers`, the paper's number."""

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        text = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        return "\n\n".join(part for part in (f"### {self.title}" if self.title else "", text, self.note) if part) + "\n"

    def csv(self) -> str:
        """CSV with one line for each cell if the table has ``numbers``, otherwise with the rows of the table."""
        text = io.StringIO()
        lines: Sequence[Sequence[str | float | int]] = (
            [NUMBERS, *self.numbers] if self.numbers else [self.header, *self.rows]
        )
        csv.writer(text, lineterminator="\n").writerows(lines)
        return text.getvalue()

    def html(self) -> str:
        """The table as HTML."""

        def row(tag: str, cells: list[str]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        title = f"<h3>{html.escape(self.title)}</h3>" if self.title else ""
        note = f"<p class=note>{html.escape(self.note)}</p>" if self.note else ""
        body = "".join(row("td", cells) for cells in self.rows)
        table = f"<table><thead>{row('th', self.header)}</thead><tbody>{body}</tbody></table>"
        return f"{title}<div class=wide>{table}</div>{note}"
