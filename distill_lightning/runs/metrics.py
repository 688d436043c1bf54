"""metrics.csv, as it is read."""

import csv
from pathlib import Path

HEADER = ["step", "tag", "value"]


def read_metrics(path: str | Path) -> list[tuple[int, str, float]]:
    """The rows (step, tag, value) of a metrics.csv, without a torn last line. Empty where there is no file."""
    path = Path(path)
    if not path.exists():
        return []
    whole, _, _torn = path.read_text().rpartition("\n")
    return [(int(step), tag, float(value)) for step, tag, value in list(csv.reader(whole.splitlines()))[1:]]
