"""Shards that lie elsewhere: in a store or on a server that fsspec can read, by a URL such as ``s3://bucket/shards``.

Of a picture only its bytes are fetched. With a cache, whole shards are kept on this machine: the first ones, as many as
fit. They stay, because each epoch reads all pictures in a new order: a cache with room for the share f of them serves f
of all reads, and one that drops what was not read for longest about f^2 / 2. So nothing has to be counted, and any
number of processes can share it.
"""

import contextlib
import hashlib
import io
import os
import shutil
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from distill_lightning.data.shards import LocalShards
from distill_lightning.data.stores import junk_kind
from distill_lightning.errors import InputError
from distill_lightning.files import atomic_write, locked, sweep

TRIES = 4
"""How often a read is tried. After the n-th failure it waits 2^n - 1 seconds."""
VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "md5",
    "checksum",
    "LastModified",
    "last_modified",
    "mtime",
    "updated",
    "created",
)
"""What stores tell about the version of a file, the best first."""
ABANDONED_S = 600
"""After this many seconds without a write, what a process was fetching is abandoned."""
BLOCK = 4 << 20
"""The bytes of a shard that are fetched at once when it is read as a whole."""
DEEPEST = 3
"""The number of levels of folders that are searched for shards."""


@lru_cache(maxsize=8)
def _opened(root: str, process: int) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. A process that was forked needs its own."""
    try:
        import fsspec
    except ImportError as error:
        raise InputError(f"{root} needs fsspec: pip install 'distill_lightning[remote]'") from error
    try:
        system, path = fsspec.core.url_to_fs(root)
    except (ImportError, ValueError) as error:  # for example "Install s3fs to access S3"
        raise InputError(f"{root} cannot be opened: {error}") from error
    return system, path.rstrip("/")


class RemoteShards:
    """Shards behind a URL.

    Args:
        root: the URL of their folder.
        cache: the folder for the shards that are kept.
        cache_bytes: the largest size of all shards that are kept.

    Raises:
        InputError: fsspec or what it needs is not installed, or the folder cannot be listed.
    """

    def __init__(self, root: str, cache: Path, cache_bytes: int) -> None:
        self.root = root.rstrip("/")
        system, path = _opened(self.root, os.getpid())
        try:
            found = system.find(path, maxdepth=DEEPEST, detail=True)
            if not found:
                system.ls(path)  # it says what goes wrong, which find does not
            infos = {name[len(path) :].strip("/"): info for name, info in found.items()}
            infos = {
                name: info for name, info in infos.items() if not any(junk_kind(p, False) for p in name.split("/"))
            }
            self.infos: dict[str, dict[str, Any]] = {
                name: infos[name] if infos[name].get("size") is not None else system.info(f"{path}/{name}")
                for name in sorted(infos)
            }
        except Exception as error:  # each store has its own
            raise InputError(f"{root} cannot be listed: {_words(error)}") from error
        folder = cache / f"shards-{hashlib.sha256(self.root.encode()).hexdigest()[:16]}"
        places = {name: folder / f"{self._digest(name)}.tar" for name in self.infos}
        self.kept: dict[str, Path] = {}
        """The shards that are kept, with their places on this machine."""
        left = cache_bytes
        for name, info in self.infos.items():
            left -= info["size"] or 0
            if left < 0:
                break
            self.kept[name] = places[name]
        # a smaller cache removes shards of a larger one; a run without a cache leaves those of others alone
        current = self.kept if cache_bytes else places
        if folder.is_dir():
            for old in set(folder.glob("*.tar")) - set(current.values()):
                old.unlink(missing_ok=True)

    def state(self, name: str) -> str:
        """See Shards. It is the size and what the store tells about the version."""
        info = self.infos[name]
        return f"{info['size']} {next((info[key] for key in VERSIONS if info.get(key)), '')}"

    def _digest(self, name: str) -> str:
        return hashlib.sha256(f"{name} {self.state(name)}".encode()).hexdigest()[:16]

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(_RemoteFile(self, name), BLOCK)

    def read(self, name: str, start: int, size: int) -> bytes:
        """See Shards. A read that fails is tried again, unless the file is gone."""
        if (kept := self._kept(name)) is not None:
            with contextlib.suppress(FileNotFoundError):  # another run with a smaller cache has removed it
                return LocalShards(str(kept.parent)).read(kept.name, start, size)
        for attempt in range(1, TRIES + 1):
            try:
                system, path = _opened(self.root, os.getpid())
                # by name: in s3fs a version comes before them
                content: bytes = system.cat_file(f"{path}/{name}", start=start, end=start + size)
                return content
            except Exception as error:
                if attempt == TRIES or isinstance(error, FileNotFoundError):
                    raise OSError(_words(error)) from error
                time.sleep(2**attempt - 1)
        raise AssertionError

    def _kept(self, name: str) -> Path | None:
        """The place of a shard on this machine, after it was fetched; None if it is not kept, or if another process is
        fetching it.
        """
        place = self.kept.get(name)
        if place is None or place.exists():
            return place
        try:
            with locked(place.with_suffix(".lock"), wait=False):
                # where locks do not work, another process may be writing it
                sweep(place.parent, f"{place.name}.*", ABANDONED_S)
                if not place.exists():
                    atomic_write(place, lambda file: self._fetch(name, file))
        except BlockingIOError:
            return None
        except OSError as error:
            print(f"{self.root}: {name} is not kept on this machine: {_words(error)}", file=sys.stderr)
            del self.kept[name]
            return None
        return place

    def _fetch(self, name: str, file: BinaryIO) -> None:
        system, path = _opened(self.root, os.getpid())
        try:
            with system.open(f"{path}/{name}", "rb") as remote:
                shutil.copyfileobj(remote, file, BLOCK)
        except Exception as error:
            raise OSError(_words(error)) from error
        if file.tell() != self.infos[name]["size"]:
            raise OSError(f"it has {file.tell():,} bytes, and had {self.infos[name]['size']:,} when it was listed")


class _RemoteFile(io.RawIOBase):
    """A shard as a file, which is read from its beginning to its end."""

    def __init__(self, shards: RemoteShards, name: str) -> None:
        self.shards, self.name_of, self.place = shards, name, 0
        self.size: int = shards.infos[name]["size"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self.place = place + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        return self.place

    def readinto(self, buffer: Any) -> int:
        """Reads as much as fits.

        Raises:
            InputError: the store does not answer.
        """
        if not (wanted := min(len(buffer), self.size - self.place)) > 0:
            return 0
        try:
            content = self.shards.read(self.name_of, self.place, wanted)
        except OSError as error:
            where = f"{self.shards.root}/{self.name_of}"
            raise InputError(f"{where} cannot be read ({error}): start the same command again") from error
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)


def _words(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:100]
