"""``distill compute FUNCTION``: calls a function that computes results, and keeps them in a folder, as a run has one.

The function lies in ``distill_lightning.theory`` and returns `Computed`. Its argument ``seed`` is the seed of the run;
its argument ``data`` is a data set, with the options that ``distill fit`` has for it. The folder has config.yaml,
summary.json, metrics.csv if there are curves, and the files that the function has drawn.
"""

import importlib
import inspect
import pkgutil
import textwrap
import time
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from distill_lightning.cli.messages import Parser
from distill_lightning.cli.verbs import COLUMNS, OTHER_VERBS
from distill_lightning.data.base import ImageData
from distill_lightning.environment import versions
from distill_lightning.errors import InputError, nearest
from distill_lightning.files import atomic_write
from distill_lightning.ranges import RunSeed, refuse_faults
from distill_lightning.runs import RunConfig, start
from distill_lightning.runs.declared import declared
from distill_lightning.runs.metrics import write_metrics
from distill_lightning.runs.summary import write_summary
from distill_lightning.signatures import signature
from distill_lightning.specs.describe import class_path
from distill_lightning.theory.computed import Computed

ROOM = "distill_lightning.theory"
MADE = "made"
"""The name of the data of a function that makes its own, where a run's path has the name of its data set."""


@dataclass(frozen=True)
class Computation:
    """A function with its arguments, and the configuration and the place of the run that it makes.

    Args:
        function: the function.
        arguments: its arguments by name, without the seed.
        config: its options as those of a run: ``model`` is the function, ``data`` its data.
        stem: the folder that the run's folder lies in: logs/<data set>/<module of the function>.
        name: the name of the run's folder; None for the usual one.
    """

    function: Callable[..., Computed]
    arguments: dict[str, Any]
    config: RunConfig
    stem: Path
    name: str | None


def main(args: list[str]) -> int:
    """The command. Returns its exit status.

    Args:
        args: the words after ``compute``.

    Raises:
        InputError: there is no such function, or an argument is wrong.
    """
    if args[:1] in (["-h"], ["--help"]):
        print(_help())
        return 0
    made = read(args)
    name = made.name or f"{made.function.__name__}-seed{made.config.seed}"
    run = start(made.stem, name, made.config, once=made.name is not None)
    if run.finished:
        print(f"run: {run.folder} (it was finished)")
        return 0
    try:
        begin = time.monotonic()
        takes_seed = {"seed": made.config.seed} if "seed" in signature(made.function).arguments else {}
        computed = made.function(**made.arguments, **takes_seed)
        _write(run.folder, computed, made.config, time.monotonic() - begin)
    finally:
        run.release()
    for tag, value in computed.metrics.items():
        print(f"{tag:<32}{value:.4f}")
    print(f"run: {run.folder}", flush=True)
    return 0


def read(args: list[str]) -> Computation:
    """Reads the function and its arguments. Nothing is computed.

    Args:
        args: the words after ``compute``.

    Raises:
        InputError: there is no such function, or an argument is wrong.
    """
    parser = Parser(prog="distill compute FUNCTION", description=OTHER_VERBS["compute"], allow_abbrev=False)
    if not args:
        raise InputError(f"distill compute needs a function, for example {ROOM}.gaussian_inputs.figure_4")
    function = _function(args[0])
    parser.add_argument("--seed_everything", type=int, default=0, help="The seed.")
    parser.add_argument("--log_dir", type=str, default="logs", help="The folder that runs are written to.")
    parser.add_argument("--name", type=str | None, help="The name of the run (default: function and seed).")
    parser.add_function_arguments(function, "of", as_group=False, skip={"seed"})
    known = signature(function).arguments
    given = parser.parse_args([_within(word, known) for word in args[1:]])
    values = [(argument.hint, given.of[name], name) for name, argument in known.items() if name in given.of]
    for hint, value, name in [*values, (RunSeed, given.seed_everything, "seed_everything")]:
        refuse_faults(hint, value, name)
    options = yaml.safe_load(parser.dump(given))
    built = parser.instantiate_classes(given)
    arguments = vars(built.of)
    data = arguments.get("data")
    init_args = dict(options.get("of") or {})
    of_data = init_args.pop("data", None) or {}
    if isinstance(data, ImageData):
        of_data = {"class_path": class_path(type(data)), "init_args": of_data.get("init_args") or {}}
    name_of = f"{function.__module__}.{function.__name__}"
    plain = {
        "seed_everything": given.seed_everything,
        "log_dir": given.log_dir,
        "name": given.name,
        "model": {"class_path": name_of, "init_args": init_args},
        "data": of_data,
        "trainer": {"devices": 0},
    }
    data_name = data.name if isinstance(data, ImageData) else MADE
    stem = Path(given.log_dir) / data_name / function.__module__.rpartition(".")[2]
    return Computation(function, arguments, RunConfig(plain, declared(plain)), stem, given.name)


def _within(word: str, known: typing.Mapping[str, Any]) -> str:
    """The name of an option with the place of the function's arguments before it, ``--of.width=3``."""
    name = word.removeprefix("--").partition("=")[0].partition(".")[0]
    return f"--of.{word.removeprefix('--')}" if word.startswith("--") and name in known else word


def _function(dotted: str) -> Callable[..., Computed]:
    """The function with this name.

    Raises:
        InputError: there is none in the room for such functions.
    """
    module, _, name = dotted.rpartition(".")
    if module.startswith(f"{ROOM}.") and module.count(".") == 2:
        try:
            found = _functions(module)
        except ModuleNotFoundError as error:
            raise InputError(f"there is no module {module} in this program: check the name of the function") from error
        if name in found:
            return found[name]
        raise InputError(f"{module} has no function {name} that computes results{nearest(name, found)}")
    raise InputError(f"{dotted[:80]} is no function of {ROOM}: give one, for example {ROOM}.gaussian_inputs.figure_4")


def _functions(module: str) -> dict[str, Callable[..., Computed]]:
    """The functions of a module that compute results, by name.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    return {
        key: value
        for key, value in vars(importlib.import_module(module)).items()
        if inspect.isfunction(value)
        and value.__module__ == module
        and typing.get_type_hints(value).get("return") is Computed
    }


def _help() -> str:
    """The help of the command: the functions that can be called."""
    lines = ["usage: distill compute FUNCTION [--option VALUE ...]", "", OTHER_VERBS["compute"], "", "The functions:"]
    for found in pkgutil.iter_modules(importlib.import_module(ROOM).__path__, f"{ROOM}."):
        for name, function in _functions(found.name).items():
            about = (inspect.getdoc(function) or "").partition("\n")[0]
            lines += [f"  {found.name}.{name}", textwrap.indent(textwrap.fill(about, COLUMNS - 6), " " * 6)]
    return "\n".join([*lines, "", "distill compute FUNCTION --help explains the options of a function."])


def _write(folder: Path, computed: Computed, config: RunConfig, seconds: float) -> None:
    """Writes what was computed; summary.json last, since a run is finished when it exists."""
    for name, content in computed.files.items():
        atomic_write(folder / name, lambda file, content=content: file.write(content.encode()))  # type: ignore[misc]
    rows = [(step, tag, value) for tag, points in computed.curves.items() for step, value in points]
    if rows:
        write_metrics(folder / "metrics.csv", rows)
    summary = {
        "metrics": computed.metrics,
        "wall_time_s": round(seconds, 3),
        "seed": config.seed,
        "config_digest": config.id(),
        "versions": versions(torch=torch.__version__),
        "device": "cpu",
        "processes": 1,
        "threads": torch.get_num_threads(),
    }
    write_summary(folder / "summary.json", summary)
