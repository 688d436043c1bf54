"""Reads a study's YAML, and checks everything that does not depend on the options of runs."""

import itertools
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_lightning.config_files import beside, shipped_names, suggestion
from distill_lightning.errors import InputError, nearest
from distill_lightning.files import read_yaml
from distill_lightning.studies.references import is_reference
from distill_lightning.studies.resources import NOTHING_SAID, Resources, read_resources

Variables = dict[str, Any]
"""The values of a run's variables, by name."""
Options = dict[str, Any]
"""Options of the command, by their name without dashes."""

KEYS = {"for", "options", "resources", "runs", "tables", "figures"}
KEYS_OF_ENTRY = {"config", "function", "for", "options", "resources"}
SET_BY_STUDY = {"name", "log_dir", "ckpt_path"}
"""Options that the study sets for each run."""
EXPECTED: dict[type, str] = {dict: "options by name", str: "the name of a file"}


@dataclass(frozen=True)
class Entry:
    """One entry of ``runs``: a run for each combination of variables."""

    name: str
    configs: tuple[str, ...]
    """The configuration files, as paths relative to the current folder; empty for a function."""
    options: Options
    """The options of the study and of the entry, before variables and references are replaced. A function has those of
    the entry alone."""
    combinations: tuple[Variables, ...]
    function: str | None = None
    """The dotted name of the function that computes the results; None for a training."""
    resources: Resources = NOTHING_SAID
    """What each run needs of the machine that trains it."""


@dataclass(frozen=True)
class Study:
    """The content of a study's file."""

    path: Path
    entries: dict[str, Entry]
    tables: Any
    """As in the YAML; `distill_lightning.report.check` checks them."""
    figures: Any
    """As in the YAML; `distill_lightning.report.check` checks them."""


def read_study(path: Path) -> Study:
    """Reads a study from a YAML file.

    Raises:
        InputError: there is no such file, it is not YAML, or a key or a value is wrong.
    """
    study = read_runs(path, "study", "studies/")
    if not isinstance(study, dict) or not isinstance(study.get("runs"), dict) or not study["runs"]:
        raise InputError(f"{path} names no runs: a study needs the key runs, with an entry for each kind of run")
    check_keys(study, KEYS, str(path))
    check_type(study.get("options"), dict, f"{path}: options")
    entries = [_read_entry(str(name), entry, study, path) for name, entry in study["runs"].items()]
    return Study(path, {entry.name: entry for entry in entries}, study.get("tables"), study.get("figures"))


def place_of(path: Path, entry: str) -> str:
    """The place of an entry, for error messages."""
    return f"{path}: the run {entry}"


def _read_entry(name: str, entry: Any, study: dict[str, Any], path: Path) -> Entry:
    where = place_of(path, name)
    if not isinstance(entry, dict) or not (entry.get("config") or entry.get("function")):
        raise InputError(f"{where} has no config: give the YAML file of its configuration")
    if entry.get("config") and entry.get("function"):
        raise InputError(f"{where} has config and function: give a configuration to train, or a function to compute")
    check_keys(entry, KEYS_OF_ENTRY, where)
    check_type(entry.get("options"), dict, f"{where}: options")
    function = entry.get("function")
    if function is not None and not isinstance(function, str):
        raise InputError(f"{where}: function is {function}: expected its dotted name")
    of_study = {} if function else study.get("options") or {}
    options = {**of_study, **(entry.get("options") or {})}
    for option in sorted(SET_BY_STUDY & options.keys()):
        raise InputError(f"{where} sets {option}, which the study itself sets: leave it out")
    files = configs_of(entry, path, where)
    resources = read_resources(entry.get("resources"), where, read_resources(study.get("resources"), str(path)))
    values = tuple(combinations(entry.get("for", study.get("for")), where))
    return Entry(name, files, options, values, function, resources)


def read_runs(path: Path, what: str, folder: str) -> Any:
    """The content of a file that says which runs to make.

    Args:
        path: the file.
        what: what it is, "study" or "search".
        folder: the folder of the shipped ones, as "studies/".

    Raises:
        InputError: there is no such file, or it is not YAML.
    """
    if not path.is_file():
        neighbours = [str(file) for file in path.parent.glob("*.yaml")]
        shipped = [name for name in shipped_names() if name.startswith(folder)]
        raise InputError(f"there is no {what} {path}{nearest(str(path), neighbours) or suggestion(path, shipped)}")
    return read_yaml(path)


def configs_of(given: dict[str, Any], path: Path, where: str) -> tuple[str, ...]:
    """The configuration files that ``config`` names, one or a list, as paths relative to the current folder.

    Raises:
        InputError: one is no name.
    """
    configs = given.get("config") or []
    configs = configs if isinstance(configs, list) else [configs]
    for config in configs:
        check_type(config, str, f"{where}: config")
    return tuple(os.path.relpath(beside(path, config)) for config in configs)


def check_type(given: Any, expected: type, where: str) -> None:
    """Checks a value, unless it is None.

    Raises:
        InputError: it has another type.
    """
    if given is not None and not isinstance(given, expected):
        raise InputError(f"{where} is {given}: expected {EXPECTED[expected]}")


def check_keys(given: dict[str, Any], known: Collection[str], where: str) -> None:
    """Checks the keys of a part of a file.

    Raises:
        InputError: one is unknown.
    """
    for key in given:
        if key not in known:
            raise InputError(f"{where} has an unknown key {key}{nearest(str(key), known)}")


def combinations(variables: Any, where: str) -> list[Variables]:
    """Every combination of the variables' values; the last variable changes fastest.

    Args:
        variables: {name: list of values, or n for the values 0 .. n - 1}; None for no variables.
        where: the place in the study, for errors.

    Raises:
        InputError: ``variables`` has another form.
    """
    variables = variables or {}
    if not isinstance(variables, dict):
        raise InputError(f"{where}: for is {variables}: give variables by name, as in {{seed: 3}}")
    values = []
    for name, given in variables.items():
        if not (isinstance(given, list) and given) and not (type(given) is int and given > 0):
            raise InputError(f"{where}: for {name} is {given}: give a number of 1 or more, or a list of values")
        values.append(given if isinstance(given, list) else list(range(given)))
    return [dict(zip(variables, combination, strict=True)) for combination in itertools.product(*values)]


def fill(value: Any, variables: Variables, where: str) -> Any:
    """``value`` with each {name} replaced by the variable's value, at any depth.

    A string that is "{name}" and nothing else becomes the variable's value with its type. Any other string that
    consists of digits after the replacement becomes an int.

    Args:
        value: a string, or dicts and lists with strings in them. References stay as they are.
        variables: the values of the variables, by name.
        where: the place in the study, for errors.

    Raises:
        InputError: a string names a variable that does not exist.
    """
    if isinstance(value, dict):
        return {key: fill(one, variables, where) for key, one in value.items()}
    if isinstance(value, list):
        return [fill(one, variables, where) for one in value]
    if not isinstance(value, str) or is_reference(value):
        return value
    names = re.findall(r"\{(\w+)\}", value)
    for name in names:
        if name not in variables:
            raise InputError(f"{where}: there is no variable {name}{nearest(name, variables)}")
    if len(names) == 1 and value == "{" + names[0] + "}":
        return variables[names[0]]
    for name in names:
        value = value.replace("{" + name + "}", str(variables[name]))
    return int(value) if names and value.isdigit() else value
