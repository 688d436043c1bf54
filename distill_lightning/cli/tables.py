"""Metrics on the terminal."""

from rich.console import Console
from rich.table import Table


def print_metrics(metrics: dict[str, float]) -> None:
    """A table with a column for each of validation and test."""
    shown = {k: v for k, v in metrics.items() if k.partition("/")[0] in ("val", "test")}
    columns = list(dict.fromkeys(k.partition("/")[0] for k in shown))
    table = Table("", *columns)
    for name in dict.fromkeys(k.partition("/")[2] for k in shown):
        table.add_row(name, *(f"{shown[f'{c}/{name}']:.4f}" if f"{c}/{name}" in shown else "" for c in columns))
    Console().print(table)
