"""Writes the files of rounds of pruning into a run's folder."""

import csv
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from distill_lightning.files import atomic_write
from distill_lightning.lottery.tickets import Ticket
from distill_lightning.plots import Line, Plot
from distill_lightning.tensor_files import write_tensors

Row = dict[str, Any]
PackedMasks = dict[str, Tensor]


def write_round_files(
    folder: Path, table: Sequence[Row], ticket: Ticket, packed_network: dict[str, Any], masks: Sequence[PackedMasks]
) -> None:
    """Writes ticket.pt, packed.pt, rounds.csv, rounds.svg, rounds/masks.npz and the folder by_density for TensorBoard.

    Files from earlier rounds are replaced.

    Args:
        folder: the run's folder.
        table: one row for each round.
        ticket: a ticket with the masks of all rounds so far.
        packed_network: the last weights as a packed network.
        masks: the packed masks of each round.
    """
    ticket.save(folder / "ticket.pt")
    write_tensors(folder / "packed.pt", packed_network)
    arrays = {f"{n}/{k}": mask.numpy() for n, of_round in enumerate(masks) for k, mask in of_round.items()}
    # reports compare the masks of several seeds, and do not import torch
    atomic_write(folder / "rounds" / "masks.npz", lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    text = io.StringIO()
    keys = list(dict.fromkeys(key for row in table for key in row))
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    atomic_write(folder / "rounds.csv", lambda file: file.write(text.getvalue().encode()))
    atomic_write(folder / "rounds.svg", lambda file: file.write(figure(table).svg().encode()))
    _write_board(folder / "by_density", table)


def _write_board(folder: Path, table: Sequence[Row]) -> None:
    """Writes a run for TensorBoard. Its x axis, which takes integers only, is 100 times the percentage of weights
    left.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed here

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as board:
        for row in table:
            for key in ("test_accuracy", "early_stop_test_accuracy", "early_stop_step"):
                if row.get(key) is not None:
                    board.add_scalar(f"by_density/{key}", row[key], round(10_000 * row["density"]))
        board.add_text("rounds", as_markdown(table))


def as_markdown(table: Sequence[Row]) -> str:
    """The table of rounds in Markdown."""
    shown = {"round": "d", "density": ".4f", "early_stop_step": "d", "early_stop_test_accuracy": ".4f"}
    shown |= {"test_accuracy": ".4f", "dead_layers": "d"}
    lines = ["| " + " | ".join(shown) + " |", "|---" * len(shown) + "|"]
    for row in table:
        cells = ("" if row.get(key) is None else format(row[key], kind) for key, kind in shown.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(table: Sequence[Row]) -> Plot:
    """A plot of test accuracy against density."""

    def line(label: str, key: str) -> Line:
        rows = [row for row in table if row.get(key) is not None]
        return Line(label, [100 * row["density"] for row in rows], [100 * row[key] for row in rows])

    lines = [line("at early stop", "early_stop_test_accuracy"), line("at the end", "test_accuracy")]
    lines = [one for one in lines if one.x]
    return Plot("Test accuracy by density", lines, "weights left, %", "accuracy, %", log_x=True)
