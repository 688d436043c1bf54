"""``distill schedule CONFIG``: draws the learning rate of a training before it begins. No picture is read."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill_lightning.cli.show import picture
from distill_lightning.cli.verbs import COLUMNS, OTHER_VERBS
from distill_lightning.errors import InputError, LineParser
from distill_lightning.files import atomic_write
from distill_lightning.learning_rates import planned_rates
from distill_lightning.optimizers import FineTuning, default_optimizer
from distill_lightning.plots import Line, Plot, number
from distill_lightning.runs import RunConfig
from distill_lightning.runs.declared import named_class
from distill_lightning.schedulers import TorchSchedule
from distill_lightning.schedules import Constant, Schedule

BATCHES = 100
"""The steps of an epoch, if they are not given: enough for a curve over the epochs."""
MOST_POINTS = 1000


def main(args: list[str], resolve: Callable[[list[str]], RunConfig]) -> int:
    """Runs the command.

    Args:
        args: the words after ``schedule``.
        resolve: resolves the arguments of ``distill fit``.

    Returns:
        The exit status.

    Raises:
        InputError: an argument is wrong, or the schedule cannot be drawn before training.
    """
    parser = LineParser(
        prog="distill schedule",
        description=OTHER_VERBS["schedule"],
        epilog="Example: distill schedule digits/dlb --model.schedule OneCycle --plot rates.svg",
        allow_abbrev=False,
    )
    parser.add_argument("config", help="a configuration; all options of distill fit may follow it")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG file to draw the rates into")
    parser.add_argument(
        "--batches_per_epoch",
        type=int,
        metavar="N",
        help="the number of training batches in an epoch, for schedulers of torch that count steps",
    )
    given, rest = parser.parse_known_args(args)
    if given.plot is not None and given.plot.suffix.lower() != ".svg":
        raise InputError(f"--plot is {given.plot}: give a file that ends in .svg")
    if given.batches_per_epoch is not None and given.batches_per_epoch < 1:
        raise InputError(f"--batches_per_epoch is {given.batches_per_epoch}: it must be 1 or more")
    run = resolve(["fit", "--config", given.config, *rest])
    points = rates_of(run, given.batches_per_epoch)
    start, last, (peak, highest) = points[0][1], points[-1][1], max(points, key=lambda point: point[1])
    drawn = points[:: -(-len(points) // MOST_POINTS)]
    drawn += [point for point in [points[-1]] if point != drawn[-1]]
    name = _schedule_name(run)
    width = min(shutil.get_terminal_size((COLUMNS, 24)).columns, 100)
    print(picture({name: drawn if len(drawn) > 1 else drawn * 2}, "epoch", "learning rate", width, colours=False))
    print(f"first {number(start)}, highest {number(highest)} at epoch {number(peak)}, last {number(last)}")
    if given.plot is not None:
        line = Line("", [x for x, _ in drawn], [y for _, y in drawn])
        text = Plot(f"Learning rate: {name}", [line], "epoch", "learning rate").svg()
        atomic_write(given.plot, lambda file: file.write(text.encode()))
        print(f"plot: {given.plot}")
    return 0


def rates_of(run: RunConfig, batches_per_epoch: int | None) -> list[tuple[float, float]]:
    """The rate of each step of a run: the position in epochs, and the rate.

    Args:
        run: the options of the run.
        batches_per_epoch: the number of batches in an epoch; None if it is not known.

    Raises:
        InputError: see ``planned_rates``; or the method trains nothing; or the scheduler counts steps, and their number
            is not known.
    """
    made_by = named_class(run.options["model"]["class_path"])
    if not made_by.trains:
        raise InputError(f"{made_by.__name__} trains nothing, so it has no learning rate")
    model, trainer = run.options["model"]["init_args"], run.options["trainer"]
    schedule = _schedule(model.get("schedule"))
    limit = trainer.get("limit_train_batches")
    known = batches_per_epoch or (limit if isinstance(limit, int) else None)
    if known is None and isinstance(schedule, TorchSchedule) and schedule.counts_steps:
        raise InputError("this scheduler of torch counts steps: give --batches_per_epoch N to distill schedule")
    batches, per_step = known or BATCHES, trainer.get("accumulate_grad_batches") or 1
    optimizer = model.get("optimizer")
    make = _partial(optimizer) if isinstance(optimizer, dict) else default_optimizer
    rates = planned_rates(schedule, make, trainer["max_epochs"], batches, per_step)
    tuning = model.get("fine_tuning")
    after_head = FineTuning(**tuning["init_args"]).rate_factor if tuning else lambda _: 1.0
    return [(at, rate * after_head(int(at))) for at, rate in rates]


def _schedule(spec: dict[str, Any] | None) -> Schedule | TorchSchedule:
    if spec is None:
        return Constant()
    given = dict(spec.get("init_args") or {})
    if isinstance(given.get("scheduler"), dict):
        given["scheduler"] = _partial(given["scheduler"])
    made_by = named_class(spec["class_path"])
    if isinstance(made_by, type) and issubclass(made_by, Schedule | TorchSchedule):
        return made_by(**given)
    return TorchSchedule(_partial(spec))


def _partial(spec: dict[str, Any]) -> Callable[..., Any]:
    return functools.partial(named_class(spec["class_path"]), **(spec.get("init_args") or {}))


def _schedule_name(run: RunConfig) -> str:
    spec = run.options["model"]["init_args"].get("schedule") or {"class_path": "Constant"}
    inner = (spec.get("init_args") or {}).get("scheduler")
    return str((inner if isinstance(inner, dict) else spec)["class_path"]).rpartition(".")[2]
