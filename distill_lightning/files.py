"""Writes files as a whole or not at all, and reads YAML and JSON as plain data."""

import itertools
import json
import os
import secrets
import shutil
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import yaml

from distill_lightning.errors import InputError

LARGEST_YAML = 4 << 20
"""The largest size of a YAML file in bytes. A configuration has a few thousand."""
MOST_VALUES = 1_000_000
"""The largest number of values in plain data. A value that an alias or a shared reference repeats counts each time."""
DEEPEST = 64
"""The largest number of levels of lists and dicts in plain data."""
LONGEST_NUMBER = 100
"""The largest length of a number in YAML. The time to read a number grows with the square of its length."""
MOST_MERGED = 100_000
"""The largest number of keys that all merges (``<<``) of a YAML file may add together."""
LARGEST_JSON = 256 << 20
"""The largest size of a JSON file in bytes."""


class YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads plain data and makes no objects. It limits merges and the length of numbers, which could take much time."""

    merged = 0
    """The number of keys that merges have added so far. Merges of merges multiply it."""

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


def unique_digits() -> str:
    """Digits for a temporary name. The number of the process alone is not enough: containers that share a disk may have
    the same ones.
    """
    return f"{os.getpid()}{secrets.randbits(48):015d}"


def atomic_write(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that an interruption leaves the old file or the new one, and never a part.

    The content is written under a temporary name in the same folder, synced to the disk, and then renamed.

    Args:
        path: the file to make or to replace. Its folder is made if it does not exist.
        write: writes the content into the open file that it gets.

    Raises:
        OSError: the file cannot be written, because the disk is full for example. No temporary file is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{unique_digits()}.tmp")
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


def atomic_link(source: Path, target: Path) -> Path:
    """Makes ``target`` a hard link to ``source``, or a copy if the file system has no hard links.

    Args:
        source: an existing file.
        target: the new name. A file with this name is replaced.

    Returns:
        ``target``.

    Raises:
        OSError: the link and the copy both fail.
    """
    temporary = target.with_name(f".{target.name}.{unique_digits()}.tmp")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    sync_folder(target.parent)
    return target


def sync_folder(folder: Path) -> None:
    """Syncs a folder to the disk, so that its renamed files survive a power cut."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(folder: Path, name: str = "*", older_than_s: float | None = None) -> None:
    """Removes temporary files that killed processes have left in a folder.

    Args:
        folder: the folder.
        name: the name of the files that were being written, or a pattern.
        older_than_s: removes only those that nobody has written to for so many seconds; by default all.
    """
    for leftover in folder.glob(f".{name}.tmp"):
        with suppress(FileNotFoundError):
            if older_than_s is None or time.time() - leftover.stat().st_mtime > older_than_s:
                leftover.unlink()


def nested_values(data: Any, where: str) -> Iterator[Any]:
    """Yields every value in nested dicts, lists, tuples and sets, and the keys of dicts.

    Args:
        data: the content of a file.
        where: the file, for the error.

    Raises:
        InputError: there are too many values or levels, which a small file can describe by shared references; or a set
            holds something other than numbers and strings.
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
    return sorted(value, key=repr)  # sets have no fixed order


def parse_yaml(text: str, where: str) -> Any:
    """The plain data of a YAML text: dicts, lists, strings, numbers, dates.

    Args:
        text: the YAML.
        where: the file that it comes from, for the error.

    Raises:
        InputError: the text is no YAML, names Python objects, or is too large when its aliases are followed.
    """
    if len(text) > LARGEST_YAML:
        raise InputError(
            f"{where} has {len(text):,} characters, expected at most {LARGEST_YAML:,}: this file is not read"
        )
    try:
        data = yaml.load(text, YamlLoader)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where} is not a YAML file of plain data: {_where_in(error)}") from error
    for _ in nested_values(data, where):
        pass
    return data


def _where_in(error: Exception) -> str:
    """What a YAML reader says, in one line, without the name that it has for a text that is no file."""
    return " ".join(str(error).replace('in "<unicode string>", ', "").split())[:130]


def is_url(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def read_yaml(path: str | Path) -> Any:
    """The plain data of a YAML file.

    Raises:
        InputError: the file is too large, or see ``parse_yaml``.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if path.stat().st_size > LARGEST_YAML:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, expected at most {LARGEST_YAML:,}: it is not read")
    return parse_yaml(path.read_text(encoding="utf-8", errors="replace"), str(path))


def read_json(path: str | Path) -> dict[str, Any]:
    """The dict in a JSON file.

    Raises:
        InputError: the file is too large, is no JSON, or holds no dict.
        OSError: the file cannot be read.
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
    r"""Text that is safe to print on a terminal. Control characters are replaced by escapes such as \\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def refuse_odd_name(name: str, option: str) -> None:
    """Refuses a name that is not the name of a single visible folder.

    Args:
        name: the name.
        option: the option that gives it, for the error.

    Raises:
        InputError: the name is empty or too long, begins with a dot or a dash, or has a separator or a character that
            cannot be printed.
    """
    if not name or name[0] in ".-" or not name.isprintable() or set(name) & set("/\\:") or len(name.encode()) > 200:
        raise InputError(
            f"{option} is {name!r}: give printable characters, without / \\ :, no dot or dash at the start"
        )


_locks: "weakref.WeakSet[IO[Any]]" = weakref.WeakSet()


def lock_ends_here(file: IO[Any]) -> None:
    """Closes a locked file in processes that are forked from this one.

    A lock belongs to the open file, which a forked process shares: workers of a data loader that outlive their killed
    parent for some seconds would keep its lock.
    """
    _locks.add(file)


def _close_locks() -> None:
    for file in list(_locks):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """A context in which no other process has the lock of this name. Systems and disks without locks give it to all.

    Args:
        path: the file of the lock, which is made.
        wait: whether to wait for another process.

    Raises:
        BlockingIOError: another process has the lock, and ``wait`` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        lock_ends_here(file)
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except (ImportError, OSError):
            pass
        yield
