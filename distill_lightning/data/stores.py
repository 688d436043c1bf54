"""Where files lie: in a folder or (in ``archives``) in a zip or tar file.

A store lists its files by name, relative to its root and with "/" between the parts, and reads one by its name.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from distill_lightning.files import printable

JUNK = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "folder.jpg:encryptable")
"""Files that operating systems leave in folders. Case is ignored."""
JUNK_FOLDERS = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__")
"""Folders of the same kind."""


@dataclass(frozen=True)
class Listing:
    """The content of a store.

    Args:
        files: the names of the files, sorted by their parts, without hidden files and junk of operating systems.
        folders: the names of the folders, in the same order.
        passed_over: the number of files that were left out, by kind.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    passed_over: dict[str, int]


class Store(Protocol):
    """A folder or an archive. ``root`` is its path."""

    root: Path

    def listing(self) -> Listing:
        """Lists all files.

        Raises:
            InputError: the store cannot be listed safely.
        """

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading. The caller closes it.

        Raises:
            OSError: it cannot be read.
        """

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            OSError: it cannot be read.
        """

    def state(self, name: str) -> str:
        """Text that changes when the file changes: its size and, where there is one, its time of modification."""

    def size(self, name: str) -> int:
        """The size of a file in bytes."""


def shown(name: str | bytes | Path) -> str:
    """A name of a file for messages, with escapes for control characters and bytes that are not UTF-8."""
    return printable(os.fsencode(name).decode(errors="backslashreplace"))


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a name, by which names are sorted."""
    return tuple(name.split("/"))


def junk_kind(part: str, is_folder: bool) -> str | None:
    """What kind of junk a file or folder with this name is; None if it is none."""
    if part.startswith("."):
        return "hidden"
    if part.lower() in (JUNK_FOLDERS if is_folder else JUNK):
        return "of the operating system"
    return None


def stamp(path: Path) -> tuple[int, int]:
    """The size and the time of the last change of a file. Another file in its place has another stamp."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


class FolderStore:
    """A folder. Symbolic links are followed, but each folder is searched only once.

    Args:
        root: its path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def listing(self) -> Listing:
        """See Store. A link whose target does not exist is listed, and cannot be read."""
        files: list[str] = []
        folders: list[str] = []
        passed: Counter[str] = Counter()
        waiting: list[tuple[str, tuple[str, ...]]] = [("", ())]
        while waiting:
            below, above = waiting.pop()
            path = os.path.join(self.root, below)
            # a link to another folder is that folder once more, a link to one above it would go on for ever
            if (real := os.path.realpath(path)) in above:
                continue
            if below:
                folders.append(below)
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name, reverse=True)
            for entry in found:
                is_folder = entry.is_dir()
                if kind := junk_kind(entry.name, is_folder):
                    passed[kind] += 1
                elif is_folder:
                    waiting.append((f"{below}/{entry.name}" if below else entry.name, (*above, real)))
                elif entry.is_file() or entry.is_symlink():
                    files.append(f"{below}/{entry.name}" if below else entry.name)
        return Listing(tuple(sorted(files, key=parts_of)), tuple(sorted(folders, key=parts_of)), dict(passed))

    def open(self, name: str) -> BinaryIO:
        return open(os.path.join(self.root, name), "rb")

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def state(self, name: str) -> str:
        try:
            stat = os.stat(os.path.join(self.root, name))
        except OSError:
            return "gone"
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def size(self, name: str) -> int:
        return os.stat(os.path.join(self.root, name)).st_size
