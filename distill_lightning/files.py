"""Files that are whole or not there."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


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
