"""Predictions for pictures, as a value: the same from a run, a checkpoint or an exported file. It needs only numpy."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distill_lightning.html_tables import html_table

SHOWN_ROWS = 20
"""The number of rows that a notebook shows."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one picture.

    Args:
        file: the path of the picture as it was given or found; None if it is not a file.
        name: the name of the class with the highest probability.
        prob: the probability of this class, in 0 to 1.
        probs: (K,) float32, the probabilities of all classes; their sum is 1.
    """

    file: str | None
    name: str
    prob: float
    probs: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The predictions for N pictures. Iteration gives a `Prediction` for each picture.

    Args:
        probs: (N, K) float32, the probabilities of the K classes; the sum of each row is 1.
        class_names: the names of the K classes, in the order of the columns.
        files: the paths of the N pictures; None if they are not files.

    Raises:
        ValueError: the lengths do not agree.
    """

    probs: npt.NDArray[np.float32]
    class_names: list[str]
    files: list[str] | None = None

    def __post_init__(self) -> None:
        if self.probs.ndim != 2 or self.probs.shape[1] != len(self.class_names):
            raise ValueError(f"probs have the shape {self.probs.shape}, not (N, {len(self.class_names)})")
        if self.files is not None and len(self.files) != len(self.probs):
            raise ValueError(f"there are {len(self.files)} files for {len(self.probs)} pictures")

    @property
    def classes(self) -> list[str]:
        """The name of the most probable class of each picture; of equal probabilities, the first."""
        return [self.class_names[number] for number in self.probs.argmax(1).tolist()] if len(self) else []

    def __len__(self) -> int:
        return len(self.probs)

    def __getitem__(self, row: int) -> Prediction:
        probs = self.probs[row]
        best = int(probs.argmax())
        return Prediction(
            None if self.files is None else self.files[row], self.class_names[best], float(probs[best]), probs
        )

    def __iter__(self) -> Iterator[Prediction]:
        return map(self.__getitem__, range(len(self)))

    def __repr__(self) -> str:
        return f"Predictions({len(self)} pictures, {len(self.class_names)} classes)"

    def _repr_html_(self) -> str:
        """A table of the first rows, for notebooks."""
        head = ["file" if self.files is not None else "index", "class", "probability"]
        rows = [
            [str(position) if one.file is None else one.file, one.name, f"{one.prob:.1%}"]
            for position, one in zip(range(SHOWN_ROWS), self, strict=False)
        ]
        left = len(self) - len(rows)
        return html_table(head, rows) + (f"<p>{left} more</p>" if left else "")

    def as_csv(self, index: Sequence[int] | None = None, labels: Sequence[str] | None = None) -> str:
        """The table that ``distill predict`` writes: file or index, label, predicted class, and each probability.

        Args:
            index: what stands in the first column if the pictures are not files; 0 to N - 1 by default.
            labels: the names of the true classes; the column is empty if they are unknown.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        first = "index" if self.files is None else "file"
        writer.writerow([first, "label", "predicted", *(f"prob_{name}" for name in self.class_names)])
        for row, one in enumerate(self):
            name = one.file if one.file is not None else row if index is None else index[row]
            label = "" if labels is None else labels[row]
            writer.writerow([name, label, one.name, *(f"{p:.6g}" for p in one.probs.tolist())])
        return text.getvalue()
