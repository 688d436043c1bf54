"""summary.json and confusion.csv: the results of a finished run."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_lightning.errors import InputError
from distill_lightning.files import atomic_write

CONFUSION = "confusion.csv"
LARGEST_CONFUSION_BYTES = 2**24
"""The largest size of a confusion matrix that is read. 1,000 classes have about 2 MB."""


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes summary.json at once as a whole, since a run is finished when the file exists."""
    atomic_write(path, lambda file: file.write((json.dumps(summary, indent=2) + "\n").encode()))


def write_confusion(folder: Path, class_names: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    """Writes confusion.csv: a row for each true class, a column for each predicted class.

    Args:
        folder: the run's folder.
        class_names: the names of the K classes.
        counts: the number of test pictures, K rows of K.
    """
    text = io.StringIO()
    rows = [[name, *row] for name, row in zip(class_names, counts, strict=True)]
    csv.writer(text, lineterminator="\n").writerows([["true class", *class_names], *rows])
    atomic_write(folder / CONFUSION, lambda file: file.write(text.getvalue().encode(errors="replace")))


def read_confusion(folder: Path) -> tuple[list[str], list[list[int]]]:
    """Reads confusion.csv.

    Returns:
        The names of the K classes, and the counts, K rows of K; both are empty if there is no such file.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / CONFUSION
    if not path.is_file():
        return [], []
    try:
        if path.stat().st_size > LARGEST_CONFUSION_BYTES:
            raise ValueError(f"it has more than {LARGEST_CONFUSION_BYTES} bytes")
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            header, *rows = csv.reader(file)
        names, counts = header[1:], [[int(count) for count in row[1:]] for row in rows]
        if [row[0] for row in rows] != names or any(len(row) != len(names) for row in counts):
            raise ValueError("its rows and columns are not the same classes")
        if not all(0 <= count < 2**53 for row in counts for count in row):
            raise ValueError("a count is negative or too large")
    except (ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{path} is damaged: {str(error)[:100]}: move it away, or train the run again") from error
    return names, counts
