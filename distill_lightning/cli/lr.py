"""``distill lr CONFIG|RUN``: a range test of the learning rate. Nothing but the figure is written."""

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from distill_lightning.cli.verbs import COLUMNS, OTHER_VERBS
from distill_lightning.errors import InputError, LineParser
from distill_lightning.files import atomic_write
from distill_lightning.plots import Line, Plot, number

if TYPE_CHECKING:
    from distill_lightning.training.range_test import RangeTest

KINDS = (".svg", ".png")
SHOWN = 1.5
"""Losses above this share of the start are cut off in the terminal: they would flatten the rest."""


def main(args: list[str]) -> int:
    """Runs the command.

    Args:
        args: the words after ``lr``.

    Returns:
        The exit status: 0.

    Raises:
        InputError: an argument is wrong, or the run cannot be started.
    """
    parser = LineParser(
        prog="distill lr",
        description=OTHER_VERBS["lr"],
        epilog="The suggested rate is the smallest at which the loss rises, divided by 10, or by 30 for a network with "
        "batch norm: a rate to begin with. Example: distill lr digits/dlb --plot rates.svg",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        metavar="CONFIG|RUN",
        help="a configuration, a run's folder or a checkpoint; options of fit may follow",
    )
    parser.add_argument("--low", type=float, default=1e-5, metavar="RATE", help="the first rate (default: 1e-5)")
    parser.add_argument("--high", type=float, default=10.0, metavar="RATE", help="the last rate (default: 10)")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="the number of steps (default: 100)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the losses into this file, .svg or .png")
    given, rest = parser.parse_known_args(args)
    if given.plot is not None and given.plot.suffix.lower() not in KINDS:
        raise InputError(f"--plot is {given.plot}: give a file that ends in .svg or .png")
    if not 0 < given.low < given.high < math.inf:
        raise InputError(f"--low is {given.low:g} and --high is {given.high:g}: expected 0 < low < high")
    if not 10 <= given.steps <= 10_000:
        raise InputError(f"--steps is {given.steps}: give a number from 10 to 10,000")
    if any(word.partition("=")[0] == "--ckpt_path" for word in rest):
        raise InputError("distill lr takes no --ckpt_path: give the run itself, or --start_from for its weights")
    from distill_lightning.cli import app  # which imports torch: seconds

    found = app.range_test([given.source, *rest], given.low, given.high, given.steps)
    if found is None:  # another process says it
        return 0
    print("\n".join(_lines(found)), flush=True)
    if given.plot is not None:
        kind = given.plot.suffix.lower()[1:]
        drawn = _plot(found).file(kind)
        atomic_write(given.plot, lambda file: file.write(drawn))
        print(f"plot: {given.plot}")
    return 0


def _lines(found: "RangeTest") -> list[str]:
    """The figure for the terminal, and what it says."""
    from distill_lightning.cli.show import picture

    width = min(shutil.get_terminal_size((COLUMNS, 24)).columns, 100)
    top = SHOWN * max(1.0, found.start)
    curve = [(math.log10(r), min(y, top)) for r, y in zip(found.rates, found.smoothed, strict=True) if math.isfinite(y)]
    lines = [f"loss of the training pictures / ln K, {len(found.rates)} steps; 1 is a network that knows nothing"]
    if len(curve) > 1:
        lines.append(picture({"mean of 3 steps": curve}, "log10 of the rate", "loss", width, colours=False))
    return lines + in_words(found)


def in_words(found: "RangeTest") -> list[str]:
    """What a range test says, in one or two lines."""
    if found.bound is None:
        return [f"The loss rises nowhere up to a rate of {number(found.rates[-1])}: give a larger --high."]
    if found.suggestion is None:
        return [f"The loss rises from the first rate on, {number(found.bound)}: give a smaller --low."]
    kind = "with" if found.batch_norm else "without"
    return [
        f"The loss rises from a rate of {number(found.bound)} on: training needs a smaller one.",
        f"suggestion: --model.optimizer.lr {found.suggestion:g} (a {found.margin:g}th of it, for networks {kind} batch "
        "norm)",
    ]


def _plot(found: "RangeTest") -> Plot:
    top = min(max((y for y in found.smoothed if math.isfinite(y)), default=1.0), 2 * max(1.0, found.start))
    lines = [Line("mean of 3 steps", found.rates, [min(y, top) for y in found.smoothed], place=0)]
    for name, rate, place in (("the loss rises", found.bound, 1), ("suggestion", found.suggestion, 2)):
        if rate is not None:
            lines.append(Line(f"{name}: {number(rate)}", [rate, rate], [0.0, top], place=place))
    return Plot("Range test of the learning rate", lines, "learning rate", "loss / ln K", log_x=True)
