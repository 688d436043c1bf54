"""Finds the runs in a folder."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from distill_lightning.catalogue.columns import grid
from distill_lightning.catalogue.info import RunInfo, read
from distill_lightning.errors import InputError
from distill_lightning.files import printable
from distill_lightning.html_tables import html_table
from distill_lightning.report.records import Record, is_run
from distill_lightning.runs.config import CONFIG, IDENTITY

MARKS = {IDENTITY, "summary.json", "metrics.csv", "checkpoints"}
"""Files and folders that a run has beside its config.yaml."""


class Runs(Sequence[RunInfo]):
    """A list of runs, which a notebook shows as a table.

    Args:
        infos: the runs.
    """

    def __init__(self, infos: Sequence[RunInfo]) -> None:
        self._infos = tuple(infos)

    def __len__(self) -> int:
        return len(self._infos)

    @overload
    def __getitem__(self, index: int) -> RunInfo: ...
    @overload
    def __getitem__(self, index: slice) -> "Runs": ...
    def __getitem__(self, index: int | slice) -> "RunInfo | Runs":
        return Runs(self._infos[index]) if isinstance(index, slice) else self._infos[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Runs) and self._infos == other._infos

    def __repr__(self) -> str:
        return grid(self._infos).text() if self._infos else "no runs"

    def _repr_html_(self) -> str:
        table = grid(self._infos)
        return html_table(table.header, [[printable(cell) for cell in cells] for cells in table.rows])


def list_runs(folder: str | Path = "logs") -> Runs:
    """The runs in a folder and below it, by path. Runs of any program version are found, and damaged ones too.

    Args:
        folder: a folder of runs, or a run's folder.

    Raises:
        InputError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise InputError(f"there is no folder {folder}: `distill fit` makes logs; give the folder of your runs")
    return Runs([read(found) for found in sorted(_folders(Path(folder)), key=_natural)])


def _folders(top: Path) -> Iterator[Path]:
    """The folders of runs. Hidden folders and what lies in a run's folder are left out; links are followed."""
    seen: set[tuple[int, int]] = set()
    for path, below, files in os.walk(top, followlinks=True):
        try:
            status = os.stat(path)
        except FileNotFoundError:  # a start that was refused has removed its folder
            continue
        folder = Path(path)
        is_new = (status.st_dev, status.st_ino) not in seen
        seen.add((status.st_dev, status.st_ino))
        marked = bool(MARKS & {*files, *below}) and (CONFIG in files or IDENTITY in files)
        if is_new and (marked or (CONFIG in files and is_run(Record(folder)))):
            yield folder
            is_new = False
        below[:] = [name for name in below if is_new and not name.startswith(".")]


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts seed2 before seed10."""
    parts = re.findall(r"(\d+)|(\D+)", str(path))
    return [(0, int(number), "") if number else (1, 0, text) for number, text in parts]
