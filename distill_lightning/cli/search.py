"""``distill search FILE``: trains trials with options that Optuna chooses, and says which were best."""

import contextlib
import math
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from distill_lightning.cli.several_runs import parsed, parser_of, workers_of
from distill_lightning.cli.verbs import OTHER_VERBS
from distill_lightning.errors import InputError
from distill_lightning.files import atomic_write, locked
from distill_lightning.runs.metrics import read_metrics
from distill_lightning.search import Outcome, Search, Trial, Trials, read_search
from distill_lightning.studies import (
    Display,
    Options,
    PlannedRun,
    Resolve,
    plan_study,
    read_summary,
)
from distill_lightning.studies.training import Training
from distill_lightning.studies.workers import Workers

ENTRY = "trial"
"""The name of each trial's runs begins with it."""
MOST_FAILURES = 3
"""A search whose first trials all fail ends with this number."""
Plan = Callable[[Options], tuple[PlannedRun, ...]]
"""Plans the runs of a trial, one for each seed."""


def main(args: list[str], resolve: Resolve, gpus: Callable[[], list[str]]) -> int:
    """Runs the command.

    Args:
        args: the words after ``search``.
        resolve: resolves the arguments of a run.
        gpus: gives the names of the GPUs to share, as CUDA_VISIBLE_DEVICES takes them.

    Returns:
        The exit status: 0; 1 if no trial has a result; 128 + n if signal n ended the search.

    Raises:
        InputError: an option or the search is wrong.
    """
    parser = parser_of("search", "searches", "digits", OTHER_VERBS["search"])
    parser.add_argument("--seed", type=int, default=0, help="the seed of the choices")
    given, options, file = parsed(parser, args)
    search = read_search(file, options)
    folder = Path(given.log_dir) / "searches" / given.file.stem

    def plan(values: Options) -> tuple[PlannedRun, ...]:
        return plan_study(search.study({ENTRY: values}), given.log_dir, resolve, [*search.given]).runs

    first = [plan(values) for values in search.corners()]  # a wrong value is found before the first trial
    for known in (runs[0].val_tags for runs in first):
        if known is not None and search.metric not in known:
            raise InputError(f"{search.path}: metric is {search.metric}: give one of {', '.join(sorted(known))}")
    workers = workers_of(given, [run.resources for run in first[0]], gpus, folder)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / "lock", wait=False))
        except BlockingIOError as error:
            raise InputError(f"another process makes the trials of {folder}: wait for it, or end it") from error
        trials = Trials(search, folder, given.seed, first[0][0].digest)
        return _search(search, trials, stack.enter_context(workers), plan, folder)


def _search(search: Search, trials: Trials, workers: Workers, plan: Plan, folder: Path) -> int:
    """Makes the trials that are missing, and writes what was found. Returns the exit status."""
    while asked := trials.ask(max(1, workers.slots // search.seeds)):
        runs: dict[Trial, tuple[PlannedRun, ...]] = {}
        for trial in asked:
            try:
                runs[trial] = plan(trial.values)
            except InputError as error:  # only these values together are wrong
                print(f"failed: {error}")
                trials.tell(trial, None, "diverged")
        ended_by = _train(search, trials, runs, workers, folder / "output")
        if ended_by:
            print("the same command goes on from here", file=sys.stderr)
            return 128 + ended_by
        so_far = Outcome(search, trials.ended(), {})
        print(so_far.line(), file=sys.stderr)
        if so_far.best is None and len(so_far.trials) >= MOST_FAILURES:
            break
    return _write(Outcome(search, trials.ended(), trials.importance()), folder, plan)


def _train(
    search: Search, trials: Trials, runs: dict[Trial, tuple[PlannedRun, ...]], workers: Workers, output: Path
) -> int:
    """Trains the runs of some trials and notes the results. Returns the signal that ended the search, or 0."""
    trial_of = {run: trial for trial, planned in runs.items() for run in planned}
    seen: dict[PlannedRun, int] = {}

    def worse(run: PlannedRun) -> bool:
        """Notes the values of a run that are new, and says whether it is worse than others."""
        if not search.prune:
            return False
        rows = [(step, value) for step, tag, value in _metrics(run.folder) if tag == search.metric]
        new = rows[seen.get(run, 0) :]
        seen[run] = seen.get(run, 0) + len(new)
        found = [trials.report(trial_of[run], step, value) for step, value in new]
        return any(found)

    training = Training([*trial_of], workers, output, Display(), should_prune=worse)
    ended_by = training.run()
    pruned, failed = (training.in_state(state) for state in ("pruned", "failed"))
    for run in failed:
        print(f"failed: {run.folder}: {training.last_words(run)} (all of it: {training.log(run)})")
    for trial, planned in runs.items():
        if any(run in pruned for run in planned):
            trials.tell(trial, None, "pruned")
        elif all(run.finished() for run in planned):
            for run in planned:  # with these, later ones are compared
                worse(run)
            trials.tell(trial, value_of(search, planned), "diverged")
        elif words := [training.last_words(run) for run in planned if run in failed]:
            trials.tell(trial, None, "diverged" if all("FloatingPointError" in one for one in words) else words[0])
    return ended_by


def _metrics(run: Path) -> list[tuple[int, str, float]]:
    """The rows of a run's metrics.csv; none as long as there is no such file, or its last line is not written yet."""
    try:
        return read_metrics(run / "metrics.csv")
    except (OSError, ValueError):
        return []


def value_of(search: Search, runs: tuple[PlannedRun, ...]) -> float | None:
    """The mean of the metric over the runs of a trial; None if it is no number.

    Raises:
        InputError: the runs have no such metric.
    """
    found = [(read_summary(run.folder).get("metrics") or {}).get(search.metric) for run in runs]
    values = [float(value) for value in found if isinstance(value, int | float)]
    if len(values) < len(runs):
        raise InputError(
            f"{search.path}: {runs[0].folder} has no {search.metric}: give another metric, or data.val_size above 0"
        )
    mean = statistics.fmean(values)
    return mean if math.isfinite(mean) else None


def _write(outcome: Outcome, folder: Path, plan: Plan) -> int:
    """Shows the table; writes it, the picture and the best configuration. Returns the exit status."""
    table = outcome.table()
    print(table)
    files = {"trials.md": table.to_markdown(), "trials.csv": table.to_csv()}
    if (plot := outcome.plot()) is not None:
        files["importance.svg"] = plot.svg()
    best = None if outcome.best is None else plan(outcome.best.values)[0].folder
    if best is not None and (best / "config.yaml").is_file():
        files["best.yaml"] = outcome.best_config(best)
    for name, content in files.items():
        atomic_write(folder / name, lambda file, content=content: file.write(content.encode(errors="replace")))  # type: ignore[misc]
    if outcome.best is None:
        print("no trial has a result", file=sys.stderr)
        return 1
    if "best.yaml" in files:
        seed = outcome.search.seeds  # the first that the search has not seen
        print(f"best: distill fit --config {shlex.quote(str(folder / 'best.yaml'))} --seed_everything {seed}")
    else:
        print(f"the run of the best trial is gone: {best}", file=sys.stderr)
    return 0
