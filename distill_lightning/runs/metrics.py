"""Reads metrics.csv, and writes a whole one."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from distill_lightning.files import atomic_write

HEADER = ["step", "tag", "value"]


def read_metrics(path: str | Path) -> list[tuple[int, str, float]]:
    """The rows (step, tag, value) of a metrics.csv. They are empty if there is no file. A last line without its end is
    left out.

    Raises:
        ValueError: a row does not have this form; it names the file and the line.
    """
    path = Path(path)
    if not path.exists():
        return []
    whole, _, _torn = path.read_text().rpartition("\n")
    rows: list[tuple[int, str, float]] = []
    for number, row in enumerate(list(csv.reader(whole.splitlines()))[1:], start=2):
        try:
            step, tag, value = row
            rows.append((int(step), tag, float(value)))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: expected a step, a tag and a value: {error}") from error
    return rows


def write_metrics(path: Path, rows: Iterable[tuple[int, str, float]]) -> None:
    """Writes a metrics.csv with these rows (step, tag, value) at once as a whole."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))
