"""Finds configuration files: those of the working folder, and those that come with the program.

A name as ``digits/dlb``, ``digits/dlb.yaml`` or ``configs/digits/dlb.yaml`` is first looked for in the working folder,
then among the shipped files. A file that begins with ``base: baseline.yaml`` builds on that file: it means the same as
``--config baseline.yaml`` before its own ``--config``.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from distill_lightning.errors import InputError, nearest
from distill_lightning.files import parse_yaml

_PACKAGE = Path(__file__).resolve().parent
_PLACES = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
FOLDER = next((folder for folder in _PLACES if folder.is_dir()), _PLACES[0])
"""The shipped files: within the installed package, or beside it at the top of the repository."""

BASE = re.compile(r"^base:.*\n?", re.MULTILINE)
"""The line that names the file that another builds on."""


def shipped_names() -> list[str]:
    """The names of all shipped files, as ``digits/dlb``."""
    return sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))


def find_shipped(name: str) -> Path | None:
    """The shipped file of a name, with or without ``configs/`` and ``.yaml``; None where there is none."""
    short = Path(name).as_posix().removeprefix("configs/").removesuffix(".yaml")
    return FOLDER / f"{short}.yaml" if short in shipped_names() else None


def shown(path: Path) -> str:
    """The name of a file in a message: that of a shipped file as ``configs/digits/dlb.yaml``."""
    return str(Path("configs") / path.relative_to(FOLDER)) if path.is_relative_to(FOLDER) else str(path)


def find(name: str) -> Path | None:
    """The file of a name: of the working folder, or else a shipped one; None where there is neither."""
    for file in (name, f"{name}.yaml"):
        if os.path.isfile(file):
            return Path(file)
    return find_shipped(name)


def find_in(folder: str, name: str) -> Path:
    """The file of a name: of the working folder, or a shipped one, also of this folder. It may not exist."""
    return find(name) or find_shipped(f"{folder}/{name}") or Path(name)


def beside(file: Path, name: str) -> Path:
    """The file that another file names: from the other's folder, or else a shipped one. It may not exist."""
    path = file.parent / name
    return path if path.is_file() else find_shipped(name) or path


def suggestion(path: Path, kept: Iterable[str] | None = None) -> str:
    """The words "; did you mean X?" for a missing file whose name is near a shipped one; or nothing.

    Args:
        path: of the missing file.
        kept: the shipped names to look at; all by default.
    """
    short = os.path.relpath(path).replace(os.sep, "/").removeprefix("configs/").removesuffix(".yaml")
    return nearest(short, shipped_names() if kept is None else kept)


def with_bases(file: Path) -> list[str]:
    """The values of ``--config`` that a file stands for, from left to right: what it builds on, then the file.

    Returns:
        Paths. A file that builds on another stands there as its text, without the line that says so.

    Raises:
        InputError: a ``base`` is not the name of a file that is there, or files build on each other in a circle.
        OSError: a file cannot be read.
    """
    values: list[str] = []
    seen: list[Path] = []
    current: Path | None = file
    while current is not None:
        if current.resolve() in seen:
            raise InputError(f"{file} builds on itself: its base, or a base of that, is {current}")
        seen.append(current.resolve())
        text = current.read_text(encoding="utf-8", errors="replace")
        base = _base_in(text, current)
        values.insert(0, str(current) if base is None else BASE.sub("", text))
        current = base
    return values


def _base_in(text: str, file: Path) -> Path | None:
    if not BASE.search(text):
        return None
    content = parse_yaml(text, str(file))
    name = content.get("base") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise InputError(f"{file} has the base {name}: expected the name of one file")
    base = beside(file, name)
    if not base.is_file():
        raise InputError(f"{file} builds on {name}, and there is no file {base}{suggestion(base)}")
    return base


def expand_configs(args: list[str]) -> list[str]:
    """The arguments of a command, with each ``--config`` as the parser can read it.

    Args:
        args: ``--config NAME``, ``--config=NAME`` and ``-c NAME`` are replaced by what the file of that name stands
            for. What is not the name of a file, as YAML itself, is left as it is, and so is that of a missing file.

    Raises:
        InputError: as `with_bases`.
        OSError: a file cannot be read.
    """
    expanded: list[str] = []
    rest = iter(args)
    for argument in rest:
        option, equals, name = argument.partition("=")
        following = None if equals or argument not in ("--config", "-c") else next(rest, None)
        if following is not None:
            name = following
        elif option != "--config" or not equals:
            expanded.append(argument)
            continue
        file = find(name)
        for value in [name] if file is None else with_bases(file):
            expanded += ["--config", value]
    return expanded
