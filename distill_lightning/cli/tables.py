"""Prints metrics on the terminal."""

from rich.console import Console
from rich.table import Table


def print_metrics(metrics: dict[str, float]) -> None:
    """Prints a table with one column for validation and one for test.

    Args:
        metrics: values by tag; other tags than val/... and test/... are left out.
    """
    shown = {k: v for k, v in metrics.items() if k.partition("/")[0] in ("val", "test")}
    columns = list(dict.fromkeys(k.partition("/")[0] for k in shown))
    table = Table("", *columns)
    for name in dict.fromkeys(k.partition("/")[2] for k in shown):
        table.add_row(name, *(f"{shown[f'{c}/{name}']:.4f}" if f"{c}/{name}" in shown else "" for c in columns))
    Console().print(table)
