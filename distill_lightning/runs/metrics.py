"""Reads metrics.csv."""

import csv
from pathlib import Path

HEADER = ["step", "tag", "value"]


def read_metrics(path: str | Path) -> list[tuple[int, str, float]]:
    """The rows (step, tag, value) of a metrics.csv. They are empty if there is no file. A last line without its end is
    left out.

    Raises:
        ValueError: a row does not have this form.
    """
    path = Path(path)
    if not path.exists():
        return []
    whole, _, _torn = path.read_text().rpartition("\n")
    return [(int(step), tag, float(value)) for step, tag, value in list(csv.reader(whole.splitlines()))[1:]]
