"""Prints metrics on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from distill_lightning.training.result import Result


def print_result(result: Result) -> None:
    """Prints a table with one column for validation and one for test."""
    columns, rows = result.table
    table = Table("", *columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_metrics(metrics: dict[str, float]) -> None:
    """Prints metrics without a run, by tag."""
    print_result(Result(Path(), metrics))
