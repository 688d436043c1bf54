"""Tables as text, Markdown, CSV and HTML."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from distill_lightning.files import printable
from distill_lightning.report.rendering import render
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
    """A table of texts. The first column names the row.

    ``print(table)`` shows it on a terminal, and a notebook shows it as a table.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    numbers: list[list[str | float | int]] = field(default_factory=list)
    """The numbers of each cell for the CSV file, if any: row, column, the values of `numbers`, the paper's number."""

    def is_text(self, column: int) -> bool:
        """Whether most cells of a column are words, not numbers. Words are aligned to the left."""
        cells = [row[column] for row in self.rows if row[column]]
        return 2 * sum(cell[0].isalpha() for cell in cells) > len(cells)

    def __str__(self) -> str:
        """The table in Markdown, with columns of equal width. Control characters are replaced."""
        lines = [[printable(cell) for cell in line] for line in self._lines()]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
        left = [column == 0 or self.is_text(column) for column in range(len(widths))]
        padded = [
            [f"{cell:{'<' if words else '>'}{width}}" for cell, width, words in zip(line, widths, left, strict=True)]
            for line in ruled
        ]
        return self._with_words("\n".join(f"| {' | '.join(line)} |" for line in padded))

    def to_markdown(self) -> str:
        """The table as Markdown."""
        lines = self._lines()
        ruled = [lines[0], ["---"] * len(self.header), *lines[1:]]
        return self._with_words("\n".join(f"| {' | '.join(line)} |" for line in ruled))

    def to_csv(self) -> str:
        """CSV with one line for each cell if the table has ``numbers``, otherwise with the rows of the table."""
        text = io.StringIO()
        lines: Sequence[Sequence[str | float | int]] = (
            [NUMBERS, *self.numbers] if self.numbers else [self.header, *self.rows]
        )
        csv.writer(text, lineterminator="\n").writerows(lines)
        return text.getvalue()

    def _repr_html_(self) -> str:
        """The table as HTML, for notebooks. All texts are escaped."""
        return render("table.html", table=self)

    def _lines(self) -> list[list[str]]:
        """The header and the rows, as cells of Markdown."""
        return [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in (self.header, *self.rows)]

    def _with_words(self, text: str) -> str:
        return "\n\n".join(part for part in (f"### {self.title}" if self.title else "", text, self.note) if part) + "\n"
