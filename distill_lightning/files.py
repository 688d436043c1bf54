"""Files that are written whole or not at all, and YAML that is read as data and nothing else."""

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from distill_lightning.errors import InputError

LARGEST_YAML = 4 << 20
"""Bytes of a YAML file that is read. A configuration has some thousands."""
MOST_VALUES = 1_000_000
"""Values that plain data may hold in all, counted where they are repeated by an alias or a shared reference too."""
DEEPEST = 64
"""Levels of lists and dicts in plain data."""
LONGEST_NUMBER = 100
"""Characters of a number in YAML: reading one takes the square of its length."""
MOST_MERGED = 100_000
"""Keys that the merges (``<<``) of a YAML file may bring in, in all."""
LARGEST_JSON = 256 << 20
"""Bytes of a JSON file that is read."""


class YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads plain data, makes no objects, and takes no more time and memory than the text has a right to."""

    merged = 0
    """Keys that merges have brought in so far: merges of merges multiply."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(other, yaml.MappingNode):
                        self.flatten_mapping(other)
                        self.merged += len(other.value)
        if self.merged > MOST_MERGED:
            raise yaml.YAMLError(f"merges of more than {MOST_MERGED:,} keys")
        super().flatten_mapping(node)

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"a number of {len(node.value):,} characters")
        return super().construct_scalar(node)


def write_whole(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes under a temporary name in the same folder, syncs, renames: a cut leaves the old file or the new one.

    Args:
        path: the file to make or to replace; its folder is made if missing.
        write: is given the open file.

    Raises:
        OSError: with the path in its text, when the disk is full, say. Nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        raise OSError(f"could not write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def link_whole(source: Path, target: Path) -> Path:
    """Gives a file a second name, in place of what had it; a copy where the file system has no links."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    sync_folder(target.parent)
    return target


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder last through a power cut."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(folder: Path) -> None:
    """Removes what writers left in a folder when they were killed."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def nested_values(data: Any, where: str) -> Iterator[Any]:
    """Every value in nested dicts, lists, tuples and sets, keys of dicts included.

    Args:
        data: what a file held.
        where: the file, for the error.

    Raises:
        InputError: there are more values than any file of this program holds, or deeper ones: a small file can describe
            them by repeating what it has named. Or a set holds something else than numbers and texts.
    """
    left = MOST_VALUES
    stack: list[tuple[Any, int]] = [(data, 0)]
    while stack:
        value, depth = stack.pop()
        left -= 1
        if left < 0:
            raise InputError(f"{where} describes more than {MOST_VALUES:,} values: this file is not read")
        yield value
        if isinstance(value, dict | list | tuple | set):
            if depth >= DEEPEST:
                raise InputError(f"{where} nests values deeper than {DEEPEST} levels: this file is not read")
            stack.extend((v, depth + 1) for v in _inside(value, where))


def _inside(value: dict[Any, Any] | list[Any] | tuple[Any, ...] | set[Any], where: str) -> Iterable[Any]:
    if isinstance(value, dict):
        return itertools.chain(dict.keys(value), dict.values(value))
    if not isinstance(value, set):
        return value
    if not all(v is None or isinstance(v, str | bytes | int | float) for v in value):
        raise InputError(f"{where} holds a set of something else than numbers and texts: this file is not read")
    return sorted(value, key=repr)  # sets have no order of their own


def parse_yaml(text: str, where: str) -> Any:
    """The plain data of a YAML text: dicts, lists, strings, numbers, dates.

    Args:
        text: the YAML.
        where: the file that it comes from, for the error.

    Raises:
        InputError: it is no YAML, names Python objects, or is too large once its aliases are followed.
    """
    if len(text) > LARGEST_YAML:
        raise InputError(
            f"{where} has {len(text):,} characters, expected at most {LARGEST_YAML:,}: this file is not read"
        )
    try:
        data = yaml.load(text, YamlLoader)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where} is not a YAML file of plain data: {' '.join(str(error).split())[:200]}") from error
    for _ in nested_values(data, where):
        pass
    return data


def read_yaml(path: str | Path) -> Any:
    """The plain data of a YAML file. May raise as ``parse_yaml``, and OSError where the file cannot be read."""
    path = Path(path)
    if path.stat().st_size > LARGEST_YAML:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, expected at most {LARGEST_YAML:,}: it is not read")
    return parse_yaml(path.read_text(encoding="utf-8", errors="replace"), str(path))


def read_json(path: str | Path) -> dict[str, Any]:
    """The dict in a JSON file.

    Raises:
        InputError: it is torn, no JSON, or holds something else.
    """
    path = Path(path)
    if path.stat().st_size > LARGEST_JSON:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, expected at most {LARGEST_JSON:,}: it is not read")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is torn, or no JSON: {str(error)[:100]}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}: expected names and values")
    return content


def printable(text: Any) -> str:
    """A text for the terminal: what would move the cursor, colour or break the line stands as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def refuse_odd_name(name: str, option: str) -> None:
    """Refuses a name that is no name of one visible folder.

    Raises:
        InputError: it is empty, begins with a dot or a dash, or has a separator or a character that cannot be printed.
    """
    if not name or name[0] in ".-" or not name.isprintable() or set(name) & set("/\\:") or len(name.encode()) > 200:
        raise InputError(
            f"{option} is {name!r}: give printable characters, without / \\ :, no dot or dash at the start"
        )
