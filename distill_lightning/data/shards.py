"""Pictures in tar files, each of which is read with one access. Nothing is unpacked."""

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol, overload

import numpy as np
import numpy.typing as npt

from distill_lightning.data.stores import Listing, shown
from distill_lightning.errors import InputError

END = ".tar"


class Shards(Protocol):
    """The files of a data set in shards, on this machine or elsewhere. ``root`` is their folder."""

    root: str

    def state(self, name: str) -> str:
        """Text that changes when a file changes."""

    def open(self, name: str) -> BinaryIO:
        """Opens a file, to read it as a whole."""

    def read(self, name: str, start: int, size: int) -> bytes:
        """A part of a file; less than ``size`` if the file is shorter.

        Raises:
            OSError: it cannot be read.
        """


class LocalShards:
    """Shards in a folder.

    Args:
        root: its path.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def state(self, name: str) -> str:
        stat = os.stat(os.path.join(self.root, name))
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def open(self, name: str) -> BinaryIO:
        return open(os.path.join(self.root, name), "rb")

    def read(self, name: str, start: int, size: int) -> bytes:
        with open(os.path.join(self.root, name), "rb", buffering=0) as file:
            file.seek(start)
            return file.read(size)


class MemberNames(Sequence[str]):
    """The names of pictures in shards, ``SHARD:MEMBER@START+SIZE``, which say where they lie. They are made when they
    are read.

    Args:
        shards: the names of the shards.
        table: (N,), for each picture the numbers of its shard and class, its start and size in bytes, and its name.
        span: which of the pictures.
    """

    def __init__(self, shards: Sequence[str], table: npt.NDArray[Any], span: slice) -> None:
        self.shards, self.table, self.span = shards, table, span
        self.rows = np.asarray(table)[span]
        self.state = _state_of(table)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        shard, _, start, size, name = self.rows[at].item()
        return f"{self.shards[shard]}:{os.fsdecode(name)}@{start}+{size}"

    def __reduce__(self) -> tuple[Any, ...]:
        # a worker process that is started anew maps the file of the table, and does not get its content
        if isinstance(self.table, np.memmap):
            return _mapped, (self.shards, str(self.table.filename), self.span, self.state)
        return MemberNames, (self.shards, self.table, self.span)


def _mapped(shards: Sequence[str], file: str, span: slice, state: tuple[int, int] | None) -> MemberNames:
    """The names in the file of a table.

    Raises:
        InputError: the file is another one than when it was mapped first, so that other pictures have these places.
    """
    names = MemberNames(shards, np.load(file, mmap_mode="r", allow_pickle=False), span)
    if names.state != state:
        raise InputError(f"{file} was made again by another run, since its tar files have changed: restore them")
    return names


def _state_of(table: npt.NDArray[Any]) -> tuple[int, int] | None:
    """Size and time of the file of a table; None if it is in memory."""
    if not isinstance(table, np.memmap) or table.filename is None:
        return None
    stat = os.stat(table.filename)
    return stat.st_size, stat.st_mtime_ns


class ShardStore:
    """A store of pictures in shards, by their `MemberNames`.

    Args:
        shards: the files.
    """

    def __init__(self, shards: Shards) -> None:
        self.shards, self.root = shards, Path(shards.root)

    def listing(self) -> Listing:
        """See Store. The pictures are listed by ``read_shards``, with their labels."""
        return Listing((), (), {})

    def open(self, name: str) -> BinaryIO:
        return BytesIO(self.read(name))

    def read(self, name: str) -> bytes:
        """See Store.

        Raises:
            InputError: the shard cannot be read, or is shorter than when it was indexed.
        """
        shard, start, size = _place(name)
        where = f"{self.shards.root}/{shown(shard)}"
        try:
            content = self.shards.read(shard, start, size)
        except OSError as error:
            raise InputError(f"{where} cannot be read ({error}): restore it, and resume the run") from error
        if len(content) < size:
            raise InputError(f"{where} is shorter than when it was indexed: restore it, and resume the run")
        return content

    def state(self, name: str) -> str:
        shard, start, size = _place(name)
        return f"{start} {size} {self.shards.state(shard)}"

    def size(self, name: str) -> int:
        return _place(name)[2]


def _place(name: str) -> tuple[str, int, int]:
    shard, _, member = name.partition(f"{END}:")
    start, size = member.rpartition("@")[2].split("+")
    return shard + END, int(start), int(size)
