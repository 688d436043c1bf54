"""Chooses runs from a list, and sorts them."""

from collections.abc import Callable, Sequence
from typing import Any

from distill_lightning.catalogue.columns import endings, value_text
from distill_lightning.catalogue.info import RunInfo
from distill_lightning.catalogue.listing import Runs
from distill_lightning.errors import InputError, nearest

MANY_NAMED = 3
"""The largest number of options that an error names."""
HIGHER_IS_BETTER = ("accuracy", "auroc", "f1")
"""Words in the names of metrics of which a higher value is better."""


def chosen(
    runs: Sequence[RunInfo],
    data_set: str | None = None,
    method: str | None = None,
    state: str | None = None,
    where: Sequence[str] = (),
) -> Runs:
    """The runs that meet all of the conditions.

    Args:
        runs: a list of runs.
        data_set: the name of a data set.
        method: the name of a method, as in the path (born_again), or of its class (BornAgain).
        state: one of ``STATES``.
        where: conditions "option=value". The option is a full name or an ending of it that names one option only:
            "model.optimizer.lr=0.1", "lr=0.1".

    Raises:
        InputError: a condition has no "=", or its option does not exist or is not the only one with this name.
    """
    tests: list[Callable[[RunInfo], bool]] = []
    if data_set is not None:
        tests.append(lambda info: info.data_set.lower() == data_set.lower())
    if method is not None:
        tests.append(lambda info: method.lower() in (info.method.lower(), str(info.method_class).lower()))
    if state is not None:
        tests.append(lambda info: info.state == state)
    known = {key: _plain_name(key) for info in runs for key in info.options}
    tests += [_condition(text, known) for text in where]
    return Runs([info for info in runs if all(test(info) for test in tests)])


def in_order(runs: Sequence[RunInfo], by: str) -> Runs:
    """The runs by a metric, the best first; runs without it come last.

    Args:
        runs: a list of runs.
        by: a metric ("test/nll"), or its name without the split ("nll"), which takes that of the test where there is
            one; or "time", "epochs" or "started" (the newest first).

    Raises:
        InputError: no run has such a metric.
    """
    numbers = [(info, _number(info, by)) for info in runs]
    if runs and all(number is None for _, number in numbers):
        known = {name for info in runs for tag in info.metrics for name in (tag, tag.partition("/")[2])}
        raise InputError(f"--sort is {by}, which no run has{nearest(by, [*known, *_OTHERS]) or ': try accuracy'}")
    descending = any(word in by.lower() for word in (*HIGHER_IS_BETTER, "started", "epochs"))
    present = sorted((n, place) for place, (_, n) in enumerate(numbers) if n is not None and n == n)
    places = [place for _, place in (reversed(present) if descending else present)]
    return Runs([runs[place] for place in [*places, *(set(range(len(runs))) - set(places))]])


_OTHERS: dict[str, Callable[[RunInfo], float | None]] = {
    "time": lambda info: info.wall_time_s if info.wall_time_s is not None else info.elapsed_s,
    "epochs": lambda info: info.epochs,
    "started": lambda info: info.started.timestamp() if info.started else None,
}


def _number(info: RunInfo, by: str) -> float | None:
    if by in _OTHERS:
        return _OTHERS[by](info)
    return next((info.metrics[tag] for tag in (by, f"test/{by}", f"val/{by}") if tag in info.metrics), None)


def _condition(text: str, known: dict[str, str]) -> Callable[[RunInfo], bool]:
    """The test of a condition "option=value". ``known`` has the plain name of each option."""
    given, equals, value = text.partition("=")
    if not equals or not given:
        raise InputError(f"--where is {text}: expected option=value, such as lr=0.1")
    name = _plain_name(given.strip().replace(".init_args", ""))
    found = sorted({plain for plain in known.values() if name in endings(plain)})
    if name in found:
        found = [name]
    if not found:
        endings_of_all = [ending for plain in set(known.values()) for ending in endings(plain)]
        near = nearest(name, endings_of_all) or ": `distill list --json` has their names"
        raise InputError(f"--where is {text}, and no run has the option {given}{near}")
    if len(found) > 1:
        some = ", ".join(found[:MANY_NAMED]) + (", ..." if len(found) > MANY_NAMED else "")
        raise InputError(f"--where is {text}, and {given} stands for {some}: give more of the name")
    keys = [key for key, plain in known.items() if plain == found[0]]
    return lambda info: any(_equal(info.options[key], key, value.strip()) for key in keys if key in info.options)


def _plain_name(key: str) -> str:
    """The name of an option without ``.class_path``: "model.network" for "model.network.class_path"."""
    return key.removesuffix(".class_path")


def _equal(value: Any, key: str, given: str) -> bool:
    """Whether an option has the value that is written as ``given``. Numbers are compared as numbers."""
    text = "null" if value is None else value_text(value)
    if key.endswith(".class_path") and "." not in given:
        text = text.rpartition(".")[2]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(given) == float(value)
        except (ValueError, OverflowError):
            return False
    return text.lower() == given.lower()
