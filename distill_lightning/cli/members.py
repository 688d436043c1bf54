"""``distill members``: trains several runs of one architecture side by side, in one process."""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from distill_lightning.cli.verbs import OTHER_VERBS
from distill_lightning.config_files import find_in
from distill_lightning.errors import InputError, LineParser, first_input_error, nearest
from distill_lightning.files import read_yaml
from distill_lightning.members import ProcessState, fit_together
from distill_lightning.ranges import RunSeed, faults
from distill_lightning.studies import Resolve, as_arguments, plan_study, read_study
from distill_lightning.training.parts import Parts
from distill_lightning.training.result import Result

EPILOG = """Other options are those of `distill fit`, for all members. Each member leaves an ordinary run folder. This
is for a GPU that one small network leaves idle; on a CPU it is no faster than one run after another."""


def main(args: list[str], build: Callable[[list[str]], Parts], resolve: Resolve) -> int:
    """Runs the command.

    Args:
        args: the words after ``members``.
        build: builds the parts of the run that the options of ``distill fit`` describe.
        resolve: resolves the arguments of a run of a study.

    Returns:
        The exit status: 0; 1 if a member failed; 128 + n if signal n ended the members.

    Raises:
        InputError: an option is wrong, or the runs cannot be trained side by side.
    """
    parser = LineParser(prog="distill members", description=OTHER_VERBS["members"], epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--seeds", metavar="N|LIST", help="a member for each seed: 10 for 0 to 9, or a list as 3,5,8")
    parser.add_argument(
        "--runs", type=Path, metavar="FILE", help="a YAML list with the options in which each member differs"
    )
    parser.add_argument(
        "--study", metavar="STUDY", help="the runs of a study that are missing; its tables are made by distill study"
    )
    parser.add_argument("--entry", metavar="NAME", help="which of the study's entries")
    parser.add_argument("--log_dir", help="the folder that runs are written to")
    parser.add_argument("--name", help="the first part of the members' names (default: the network)")
    parser.add_argument("--ckpt_path", choices=["last", "best", "auto"], help="resumes the members by their names")
    given, common = parser.parse_known_args(args)
    if sum(one is not None for one in (given.seeds, given.runs, given.study)) != 1:
        raise InputError("distill members needs --seeds N, --runs FILE or --study STUDY, one of the three")
    if (given.study is None) != (given.entry is None):
        raise InputError("--study and --entry belong together: the study, and which of its entries")
    if given.seeds is not None and any(word.startswith("--seed_everything") for word in common):
        raise InputError("--seeds gives the members' seeds: leave --seed_everything out")
    if given.seeds is not None and not any(word.partition("=")[0] in ("--config", "--model") for word in common):
        raise InputError("distill members needs --config FILE: the runs that differ in their seed, as digits/baseline")
    if given.study is not None:
        options = _of_study(given.study, given.entry, common, given.log_dir or "logs", resolve)
        common, given.ckpt_path = [], "auto"
    else:
        options = _of_seeds(given.seeds, given.name) if given.runs is None else _of_file(given.runs, given.name)
        common += [] if given.log_dir is None else ["--log_dir", given.log_dir]
    members = []
    for number, one in enumerate(options):
        quiet = ["--trainer.enable_progress_bar", "false"] * (number > 0)  # the first bar shows the pace of all
        parts = build(["--trainer.devices", "1", *common, *one, *quiet])
        members.append((parts, ProcessState()))
    before = ProcessState()
    outcomes = fit_together(members, given.ckpt_path)
    before.restore()
    again = "--ckpt_path last" if given.name or given.study or given.runs else "--name NETWORK --ckpt_path last"
    return _tell([f"member {number}" for number in range(len(options))], outcomes, again)


def _of_seeds(given: str, name: str | None) -> list[list[str]]:
    try:
        seeds = [int(word) for word in given.split(",")] if "," in given else list(range(int(given)))
    except ValueError:
        raise InputError(f"--seeds is {given}: give a number, as 10, or a list, as 3,5,8") from None
    for seed in seeds:
        for where, wrong, expected in faults(RunSeed, seed, "--seeds"):
            raise InputError(f"{where} has {wrong}: it must be {expected}")
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds is {given}: give two different seeds or more")
    return [
        [f"--seed_everything={seed}", *([f"--name={name}-seed{seed}"] if name is not None else [])] for seed in seeds
    ]


def _of_file(path: Path, name: str | None) -> list[list[str]]:
    try:
        given = read_yaml(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if not isinstance(given, list) or len(given) < 2 or not all(isinstance(one, dict) for one in given):
        raise InputError(f"{path}: expected a list of two members or more, each with its options")
    named = given if name is None else [{"name": f"{name}-{number}", **one} for number, one in enumerate(given)]
    return [as_arguments(one) for one in named]


def _of_study(name: str, entry: str, options: list[str], log_dir: str, resolve: Resolve) -> list[list[str]]:
    """The options of the runs of a study's entry that are not finished.

    Args:
        name: the study, as ``distill study`` takes it.
        entry: the name of the entry.
        options: options for every run.
        log_dir: the folder that runs are written to.
        resolve: resolves the arguments of a run.
    """
    path = find_in("studies", name)
    entries = plan_study(read_study(path), log_dir, resolve, options).entries
    if entry not in entries:
        raise InputError(f"{path} has no entry {entry}{nearest(entry, entries)}")
    missing = [run for run in entries[entry] if run.same_as is None and not run.finished()]
    if any(run.arguments[0] != "fit" for run in missing):
        raise InputError(f"{path}: {entry} is computed by a function: its runs cannot be trained side by side")
    if len(missing) < 2:
        raise InputError(f"{path}: {entry} has {len(missing)} runs that are not finished: distill study trains them")
    if waits := [need.name for run in missing for need in run.needs if not need.finished()]:
        raise InputError(f"{path}: {entry} needs {waits[0]}, which is not finished: train it first")
    return [list(run.arguments[1:]) for run in missing]


def _tell(labels: list[str], outcomes: list[Any], again: str) -> int:
    """Prints what has become of each member, and returns the exit status.

    Args:
        labels: the names of the members.
        outcomes: what ``fit_together`` has returned.
        again: the options to go on with after a signal.
    """
    accuracies, status = [], 0
    for label, outcome in zip(labels, outcomes, strict=True):
        if isinstance(outcome, Result):
            accuracy = outcome.metrics.get("test/accuracy")
            shown = "" if accuracy is None else f"  test accuracy {accuracy:.4f}"
            print(f"{label}: {outcome.folder}{shown}", flush=True)
            accuracies += [] if accuracy is None else [accuracy]
        elif isinstance(outcome, SystemExit):
            status = max(status, outcome.code if isinstance(outcome.code, int) else 1)
        else:
            wrong = first_input_error(outcome)
            if wrong is not None and not any(isinstance(one, Result | SystemExit) for one in outcomes):
                raise wrong
            said = str(wrong) if wrong is not None else f"{type(outcome).__name__}: {outcome}"
            print(f"distill: {label}: {said}", file=sys.stderr)
            status = max(status, 1)
    if status > 128:
        print(f"stopped and saved: the same command goes on with {again}", file=sys.stderr)
    if len(accuracies) > 1:
        print(f"test accuracy {100 * mean(accuracies):.2f} ± {100 * stdev(accuracies):.2f} %", flush=True)
    return status
