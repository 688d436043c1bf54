"""Zip and tar files that are read in place. Nothing is unpacked, and nothing outside of them is read or written."""

import io
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from distill_lightning.data.stores import FolderStore, Listing, Store, junk_kind, parts_of, shown, stamp
from distill_lightning.errors import InputError

LARGEST_FILE = 256 << 20
"""The largest size of a file in an archive, in bytes."""
LARGEST_RATIO = 200
"""The largest ratio of the unpacked size of a zip file to its size on disk. That of pictures is near 1."""


def open_store(root: str | Path) -> Store:
    """The store at a path: a folder, a zip file or a tar file.

    Raises:
        InputError: there is none.
    """
    path = Path(root)
    if path.is_dir():
        return FolderStore(path)
    if path.is_file():
        if zipfile.is_zipfile(path):
            return ZipStore(path)
        with open(path, "rb") as file:
            begins = file.read(6)
        if begins[:2] == b"\x1f\x8b" or begins[:3] == b"BZh" or begins == b"\xfd7zXZ\0":
            raise InputError(f"{path} is compressed as a whole, and cannot be read in place: unpack it, or make a zip")
        if tarfile.is_tarfile(path):
            return TarStore(path)
        raise InputError(f"{path} is no folder, zip or tar file: data.root must be one of them")
    raise InputError(f"there is no folder {path}: data.root must be a folder of class folders, a zip or a tar file")


class ZipStore:
    """A zip file, whose members are read in place.

    Args:
        root: its path.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.stamp = root, stamp(root)

    @property
    def archive(self) -> zipfile.ZipFile:
        """The open file."""
        return _opened_zip(str(self.root), os.getpid(), self.stamp)

    def listing(self) -> Listing:
        """See Store.

        Raises:
            InputError: the file is damaged or encrypted, a member lies outside of it, or it unpacks to too much.
        """
        try:
            members = self.archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise InputError(f"{self.root} is damaged: {error}") from error
        total, names = 0, []
        for member in members:
            if member.flag_bits & 1:
                raise InputError(f"{self.root} is encrypted: unpack it yourself, or make a zip without a password")
            total += member.file_size
            refuse_size(self.root, member.filename, member.file_size)
            names.append((member.filename, member.is_dir()))
        _refuse_ratio(self.root, total)
        return _listing_of(self.root, names)

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self.read(name))

    def read(self, name: str) -> bytes:
        try:
            return self.archive.read(self._member(name))
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
            raise OSError(str(error)) from error
        except Exception as error:
            if type(error).__module__ in ("zlib", "lzma", "bz2"):
                raise OSError(str(error)) from error
            raise

    def state(self, name: str) -> str:
        info = self._member(name)
        return f"{info.file_size} {info.CRC}"

    def size(self, name: str) -> int:
        return self._member(name).file_size

    def _member(self, name: str) -> zipfile.ZipInfo:
        try:
            return self.archive.getinfo(name)
        except KeyError:
            return self.archive.getinfo(f"./{name}")  # as some programs write the names


@lru_cache(maxsize=8)
def _opened_zip(path: str, process: int, stamp: tuple[int, int]) -> zipfile.ZipFile:
    """The open file. Processes do not share one, since they would share its position."""
    return zipfile.ZipFile(path)


class TarStore:
    """A tar file that is not compressed, whose members are read in place. Links in it are passed over.

    Args:
        root: its path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.places: dict[str, tuple[int, int]] = {}

    def listing(self) -> Listing:
        """See Store.

        Raises:
            InputError: the file is damaged, or a member lies outside of it.
        """
        names, links = [], 0
        with open(self.root, "rb") as file:
            for member in tar_members(file, self.root):
                if not (member.isfile() or member.isdir()) or member.issparse():
                    links += 1
                    continue
                refuse_size(self.root, member.name, member.size)
                name = str(PurePosixPath(member.name))
                names.append((name, member.isdir()))
                self.places[name] = (member.offset_data, member.size)
        listing = _listing_of(self.root, names)
        return Listing(listing.files, listing.folders, listing.passed_over | ({"links": links} if links else {}))

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self.read(name))

    def read(self, name: str) -> bytes:
        if not self.places:
            self.listing()
        start, size = self.places[name]
        with open(self.root, "rb") as file:
            file.seek(start)
            return file.read(size)

    def state(self, name: str) -> str:
        stat = self.root.stat()
        return f"{self.size(name)} {stat.st_size} {stat.st_mtime_ns}"

    def size(self, name: str) -> int:
        if not self.places:
            self.listing()
        return self.places[name][1]


def tar_members(file: BinaryIO, where: str | Path) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file that is not compressed.

    Args:
        file: the open file, which may be read elsewhere in between.
        where: its name, for messages.

    Raises:
        InputError: the file is damaged, or was cut.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            yield from archive
            end = archive.offset
        file.seek(end)
        has_end = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    except InputError:  # it cannot be read
        raise
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise InputError(f"{where} is damaged: {error}") from error
    # tarfile takes a damaged header for the end, and a file that was cut between two members for a whole one
    if not has_end:
        raise InputError(f"{where} is damaged, or was cut, after {end:,} bytes: restore it")


def _listing_of(root: Path, members: list[tuple[str, bool]]) -> Listing:
    """The listing of an archive, from the names of its members and whether they are folders.

    Raises:
        InputError: a name leads outside of the archive, or stands there twice.
    """
    files: set[str] = set()
    folders: set[str] = set()
    passed: Counter[str] = Counter()
    for name, is_folder in members:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name[1:2] == ":":
            raise InputError(f"{root} has the member {shown(name)[:80]}, which leads out of it: it is not read")
        kinds = [junk_kind(part, i + 1 < len(path.parts) or is_folder) for i, part in enumerate(path.parts)]
        if kind := next((kind for kind in kinds if kind), None):
            passed[kind] += not is_folder
            continue
        clean = str(path)
        if not is_folder and clean in files:
            raise InputError(f"{root} has the member {shown(name)[:80]} twice: make the archive again")
        if not is_folder:
            files.add(clean)
        above = path.parents if not is_folder else [path, *path.parents]
        folders.update(str(folder) for folder in above if str(folder) != ".")
    passed = Counter({kind: count for kind, count in passed.items() if count})
    return Listing(tuple(sorted(files, key=parts_of)), tuple(sorted(folders, key=parts_of)), dict(passed))


def refuse_size(root: str | Path, name: str, size: int) -> None:
    """Refuses a member of an archive that is too large.

    Raises:
        InputError: it is.
    """
    if size > LARGEST_FILE:
        raise InputError(
            f"{root}: {shown(name)[:80]} would unpack to {size:,} bytes; at most {LARGEST_FILE:,} are read"
        )


def _refuse_ratio(root: Path, total: int) -> None:
    on_disk = root.stat().st_size
    if total > LARGEST_RATIO * on_disk + (1 << 20):
        raise InputError(
            f"{root} has {on_disk:,} bytes and would unpack to {total:,}, more than {LARGEST_RATIO} times as many: "
            "it is not read"
        )
