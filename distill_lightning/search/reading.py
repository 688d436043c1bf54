"""Reads a search's YAML, and checks what does not depend on the options of runs."""

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_lightning.errors import InputError
from distill_lightning.studies import SET_BY_STUDY, Entry, Options, Study, check_keys, check_type, configs_of, read_runs
from distill_lightning.studies.resources import NOTHING_SAID, Resources, read_resources

KEYS = {"config", "options", "space", "trials", "seeds", "metric", "lowest_is_best", "prune", "resources"}
KEYS_OF_RANGE = {"from", "to", "log"}
VALIDATION = "val/"


@dataclass(frozen=True)
class Between:
    """A range of numbers.

    Args:
        low: the lowest value.
        high: the highest value.
        log: whether values are drawn evenly on a logarithmic scale.
    """

    low: int | float
    high: int | float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = dict[str, Between | list[Any]]
"""What is searched, by option: a range, or a list of values."""


@dataclass(frozen=True)
class Search:
    """The content of a search's file; see the package."""

    path: Path
    configs: tuple[str, ...]
    """The configuration files, as paths relative to the current folder."""
    options: Options
    space: Space
    trials: int
    seeds: int
    metric: str
    lowest_is_best: bool
    prune: bool
    given: tuple[str, ...] = ()
    """Arguments of the command line for every run."""
    resources: Resources = NOTHING_SAID
    """What each run needs of the machine that trains it."""

    def digest(self, of_runs: str) -> str:
        """The same for searches whose trials can be compared.

        Args:
            of_runs: what can change the results of runs, beside the values of the space.
        """
        space = {name: vars(one) if isinstance(one, Between) else one for name, one in self.space.items()}
        said = [of_runs, space, self.seeds, self.metric, self.lowest_is_best]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def study(self, trials: dict[str, Options]) -> Study:
        """A study of trials.

        Args:
            trials: the values of the options that are searched, by the name of the trial.
        """
        seeds = tuple({"seed": seed} for seed in range(self.seeds))
        entries = {
            name: Entry(name, self.configs, self.options | values, seeds, resources=self.resources)
            for name, values in trials.items()
        }
        return Study(self.path, entries, None, None)

    def corner(self) -> Options:
        """The first value of each option."""
        return {name: one.low if isinstance(one, Between) else one[0] for name, one in self.space.items()}

    def corners(self) -> Iterator[Options]:
        """Values that reach each one of a list and both ends of a range, to check that runs can be made of them."""
        yield self.corner()
        for name, one in self.space.items():
            for value in [one.high] if isinstance(one, Between) else one[1:]:
                yield self.corner() | {name: value}


def read_search(path: Path, arguments: Sequence[str] = ()) -> Search:
    """Reads a search from a YAML file.

    Args:
        path: the file.
        arguments: arguments of the command line for every run.

    Raises:
        InputError: there is no such file, it is not YAML, or a key or a value is wrong.
    """
    given = read_runs(path, "search", "searches/")
    if not isinstance(given, dict) or not given.get("config") or not isinstance(given.get("space"), dict):
        raise InputError(f"{path} is no search: it needs the keys config and space, with an entry for each option")
    check_keys(given, KEYS, str(path))
    options = given.get("options") or {}
    check_type(options, dict, f"{path}: options")
    space = {str(name): _read_range(one, f"{path}: the space of {name}") for name, one in given["space"].items()}
    if not space:
        raise InputError(f"{path}: space is empty: give the options to search")
    for name in sorted({*options, *space} & {*SET_BY_STUDY, "seed_everything"}):
        raise InputError(f"{path} sets {name}, which the search itself sets: leave it out")
    for word in arguments:
        key = word.partition("=")[0].lstrip("-")
        if word.startswith("-") and (key in ("config", "c", "seed_everything") or _sets(key, space)):
            raise InputError(f"{word.partition('=')[0]} would replace what {path} searches or sets: write it there")
    for name in sorted(options.keys() & space.keys()):
        raise InputError(f"{path}: {name} is in options and in space: leave it out of options")
    metric = given.get("metric", "val/accuracy")
    if not isinstance(metric, str) or not metric.startswith(VALIDATION):
        raise InputError(
            f"{path}: metric is {metric}: a search looks at the validation split alone, give one as val/accuracy"
        )
    seeds, prune = _count(given, "seeds", 1, path), _switch(given, "prune", path)
    if prune and seeds > 1:
        raise InputError(f"{path}: prune compares single runs: leave it out, or seeds at 1")
    files = configs_of(given, path, str(path))
    lowest = _switch(given, "lowest_is_best", path)
    trials, resources = _count(given, "trials", 20, path), read_resources(given.get("resources"), str(path))
    return Search(path, files, options, space, trials, seeds, metric, lowest, prune, tuple(arguments), resources)


def _sets(key: str, space: Collection[str]) -> bool:
    return any(name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.") for name in space)


def _read_range(given: Any, where: str) -> Between | list[Any]:
    if isinstance(given, list):
        if len({json.dumps(one, default=str) for one in given}) < 2:
            raise InputError(f"{where} is {given}: give at least two values, or write the option under options")
        return given
    if not isinstance(given, dict) or not {"from", "to"} <= given.keys():
        raise InputError(
            f"{where} is {given}: give a list of values, or a range as {{from: 0.001, to: 1.0, log: true}}"
        )
    check_keys(given, KEYS_OF_RANGE, where)
    low, high, log = given["from"], given["to"], given.get("log", False)
    if not all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in (low, high)
    ):
        raise InputError(f"{where} goes from {low} to {high}: expected two numbers")
    if not isinstance(log, bool):
        raise InputError(f"{where}: log is {log}: expected true or false")
    if low >= high or (log and low <= 0):
        above = "above 0 and " if log else ""
        raise InputError(f"{where} goes from {low} to {high}: the first must be {above}below the second")
    return Between(low, high, log)


def _count(given: dict[str, Any], key: str, default: int, path: Path) -> int:
    value = given.get(key, default)
    if type(value) is not int or value < 1:
        raise InputError(f"{path}: {key} is {value}: expected a number of 1 or more")
    return int(value)


def _switch(given: dict[str, Any], key: str, path: Path) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"{path}: {key} is {value}: expected true or false")
    return value
