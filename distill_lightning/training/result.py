"""The result of a fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distill_lightning.html_tables import html_table


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Args:
        folder: the folder of the run.
        metrics: the last value of everything that was logged, by tag: ``test/accuracy``, ``val/nll`` ... Accuracies and
            ECE are fractions of 1, NLL is in nats.
        trained: False if the run was finished before, so that nothing was done.
        finished: False if ``max_time`` has ended the run. It can go on.
    """

    folder: Path
    metrics: Mapping[str, float] = field(default_factory=dict)
    trained: bool = True
    finished: bool = True

    @property
    def table(self) -> tuple[list[str], list[tuple[str, ...]]]:
        """The metrics of validation and test as the columns' names, and rows with the name of a metric first. A value
        that does not exist is empty.
        """
        shown = {tag: value for tag, value in self.metrics.items() if tag.partition("/")[0] in ("val", "test")}
        columns = list(dict.fromkeys(tag.partition("/")[0] for tag in shown))
        names = dict.fromkeys(tag.partition("/")[2] for tag in shown)
        return columns, [
            (name, *(f"{shown[f'{c}/{name}']:.4f}" if f"{c}/{name}" in shown else "" for c in columns))
            for name in names
        ]

    def __str__(self) -> str:
        """The table and the folder, as text."""
        columns, rows = self.table
        first = max((len(name) for name, *_ in rows), default=0)
        lines = [("", *columns), *rows] if rows else []
        texts = [f"{name:<{first}}" + "".join(f"  {value:>6}" for value in values) for name, *values in lines]
        return "\n".join([*texts, f"run: {self.folder}"])

    def _repr_html_(self) -> str:
        """The table, as notebooks show it."""
        columns, rows = self.table
        return html_table(["", *columns], rows, str(self.folder))
