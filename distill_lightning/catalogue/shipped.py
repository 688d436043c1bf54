"""Compares a run with the configuration that comes with the program for its data set and method."""

from typing import Any

from distill_lightning.catalogue.info import RunInfo
from distill_lightning.config_files import find_shipped, with_bases
from distill_lightning.files import parse_yaml, read_yaml
from distill_lightning.runs import flatten


def changed(info: RunInfo) -> tuple[str, dict[str, tuple[Any, Any]]] | None:
    """The options of the shipped configuration that have another value in a run.

    Options that only one of the two sets are not compared: the defaults are those of classes, which are slow to import.

    Args:
        info: a run.

    Returns:
        The name of the shipped configuration, such as "digits/kd", and by short full name the values of the run and of
        the configuration. None if no such configuration is shipped.
    """
    name = f"{info.data_set}/{info.method}"
    file = find_shipped(name)
    if file is None:
        return None
    merged: dict[str, Any] = {}
    for value in with_bases(file):  # a path, or the text of a file that builds on another one
        merged = _merged(merged, parse_yaml(value, name) if "\n" in value else read_yaml(value))
    theirs = {_short(key): value for key, value in flatten(merged).items()}
    ours = {_short(key): value for key, value in info.options.items()}
    return name, {
        key: (ours[key], value) for key, value in theirs.items() if key in ours and not _same(ours[key], value)
    }


def _short(key: str) -> str:
    return key.replace(".init_args", "").removesuffix(".class_path")


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Options with those of a later file in their place. The arguments of another class replace those of the first."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            is_other = "class_path" in value and key != "model" and old.get("class_path") != value["class_path"]
            both[key] = value if is_other else _merged(old, value)
        else:
            both[key] = value
    return both


def _same(ours: Any, theirs: Any) -> bool:
    """Whether two values are the same. A class may be given by its name or by its path."""
    if isinstance(ours, str) and isinstance(theirs, str) and "/" not in ours:
        return ours.rpartition(".")[2] == theirs.rpartition(".")[2]
    return bool(ours == theirs)
