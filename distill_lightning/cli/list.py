"""``distill list``: the runs in a folder, as a table or as JSON, without importing torch."""

import collections
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distill_lightning.catalogue import RunInfo, list_runs
from distill_lightning.catalogue.choosing import chosen, in_order
from distill_lightning.catalogue.columns import HEADER, Grid, grid
from distill_lightning.catalogue.info import STATES
from distill_lightning.cli.verbs import OTHER_VERBS
from distill_lightning.errors import LineParser
from distill_lightning.files import printable

COLOURS = {"running": "cyan", "finished": "green", "interrupted": "yellow", "failed": "red", "damaged": "bold red"}
"""The colour of each state on a terminal."""
GAP = 2
"""Spaces between two columns."""
WIDEST_CELL = 28
"""The largest width of an option's value on a terminal; the middle of a longer one is left out."""


def main(args: list[str]) -> int:
    """Runs the command, and returns its exit status.

    Args:
        args: the words after ``list``.

    Raises:
        InputError: the folder or an option is wrong.
    """
    parser = LineParser(
        prog="distill list",
        description=OTHER_VERBS["list"],
        epilog="Columns of options: those that differ between the runs. "
        "Example: distill list --method kd --where temperature=4 --sort accuracy",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("logs"), help="a folder of runs; by default logs")
    parser.add_argument("--data_set", metavar="NAME", help="only runs on this data set, such as cifar100")
    parser.add_argument("--method", metavar="NAME", help="only runs of this method, such as kd")
    parser.add_argument("--state", choices=STATES, help="only runs in this state")
    parser.add_argument(
        "--where",
        metavar="OPTION=VALUE",
        action="append",
        default=[],
        help="only runs with this option, such as lr=0.1 or model.optimizer.lr=0.1; may be repeated",
    )
    parser.add_argument("--sort", metavar="METRIC", help="the best first, such as accuracy or nll; or time, started")
    parser.add_argument("--json", action="store_true", help="all that is known of the runs, as JSON")
    given = parser.parse_args(args)
    found = chosen(list_runs(given.folder), given.data_set, given.method, given.state, given.where)
    if given.sort:
        found = in_order(found, given.sort)
    if given.json:
        print(json.dumps([as_plain(info) for info in found], indent=2, allow_nan=False))
    elif not found:
        print(f"no such run in {printable(given.folder)}")
    elif Console().is_terminal:
        _print_table(grid(found), Console())
        _print_notes(found)
    else:
        print(grid(found).text())
    return 0


def as_plain(info: RunInfo) -> dict[str, Any]:
    """What is known of a run as plain data for JSON. A number that is not finite is null."""
    values = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    return _plain({"name": info.name} | values)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | None) else str(value)


def _print_table(whole: Grid, console: Console) -> None:
    """Prints as many columns as fit the terminal, and the names of the others."""
    lines = [[printable(cell) for cell in line] for line in (whole.header, *whole.rows)]
    fixed = len(HEADER)
    lines = [[*line[:fixed], *(_shortened(cell) for cell in line[fixed:])] for line in lines]
    widths = [max(map(cell_len, column)) + GAP for column in zip(*lines, strict=True)]
    count = fixed
    while count < len(widths) and sum(widths[: count + 1]) - GAP <= console.width:
        count += 1
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for place, name in enumerate(lines[0][:count]):
        # the name of a run is needed whole; the other columns are short
        table.add_column(Text(name), overflow="fold", no_wrap=place > 0)
    for line in lines[1:]:
        table.add_row(Text(line[0]), Text(line[1], COLOURS[line[1]]), *map(Text, line[2:count]))
    console.print(table)
    if count < len(widths):
        names = ", ".join(lines[0][count:])
        console.print(Text(f"They differ in these options too: {names}. --json has all values.", "dim"))


def _print_notes(infos: Sequence[RunInfo]) -> None:
    counts = collections.Counter(info.state for info in infos)
    print(f"{len(infos)} runs: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]))
    for info in infos:
        if info.note:
            print(f"{printable(info.folder)}: {printable(info.note)}", file=sys.stderr)


def _shortened(text: str) -> str:
    if len(text) <= WIDEST_CELL:
        return text
    half = (WIDEST_CELL - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
