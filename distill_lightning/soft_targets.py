"""The table of soft targets on disk: raw logits or features of a teacher for V views of every training sample.

The files of a table are in a folder. Its name is a digest of the manifest:

    manifest.json   everything that the numbers depend on
    logits.npy      (V, R, D) float32, memory-mapped; R is the number of training samples, D that of the numbers of
                    each: its K logits, its features, or both
    checks.npy      (V, blocks) int64: the CRC-32 of each block of rows, -1 for a block that is not written yet

So the table of another teacher is never opened by mistake, an interrupted generation continues with the missing blocks,
and truncated or changed files are detected. Several processes fill a table together; each writes its own blocks.
"""

import hashlib
import json
import os
import shutil
import warnings
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from distill_lightning.errors import InputError
from distill_lightning.files import atomic_write, locked

BLOCK = 256
"""The number of rows that are written and checked together."""


def digest_of(manifest: dict[str, Any]) -> str:
    """20 hexadecimal digits of SHA-256 over the manifest as JSON. The order of the keys does not matter."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:20]


class SoftTargetTable:
    """The logits of a teacher by view and row. Call ``create`` on one process, then ``open`` on all.

    Args:
        parent: the folder that contains the folders of all tables.
        manifest: everything that the numbers depend on, as values that JSON can store.
        views, rows, classes: V, R, D.
    """

    def __init__(self, parent: str | Path, manifest: dict[str, Any], views: int, rows: int, classes: int) -> None:
        self.manifest = manifest | {"views": views, "rows": rows, "classes": classes, "format": 1}
        self.folder = Path(parent) / digest_of(self.manifest)
        self.shape = (views, rows, classes)
        self.blocks = -(-rows // BLOCK)

    @property
    def num_bytes(self) -> int:
        """The size of the logits on disk."""
        return 4 * int(np.prod(self.shape))

    def create(self) -> None:
        """Creates the files that do not exist yet. One process calls it before the others call ``open``.

        Raises:
            InputError: the disk has no room for them.
        """
        if not (self.folder / "logits.npy").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if free < self.num_bytes:
                raise InputError(
                    f"the table of soft targets takes {self.num_bytes / 1e9:.1f} GB, and {self.folder.parent} has "
                    f"{free / 1e9:.1f} GB left: give fewer views, or another folder"
                )
            atomic_write(self.folder / "logits.npy", self._blank)
        if not (self.folder / "checks.npy").exists():
            unwritten = np.full((self.shape[0], self.blocks), -1, np.int64)
            atomic_write(self.folder / "checks.npy", lambda file: np.save(file, unwritten))
        if not (self.folder / "manifest.json").exists():
            text = json.dumps(self.manifest, indent=2)
            atomic_write(self.folder / "manifest.json", lambda file: file.write(text.encode()))

    def _blank(self, file: BinaryIO) -> None:
        """Writes an array of zeros without allocating memory, and as a sparse file if the file system supports it."""
        header = {"descr": "<f4", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + self.num_bytes)

    def open(self, mode: Literal["r", "r+"] = "r+") -> None:
        """Maps the files into memory.

        Args:
            mode: "r" for reading only, "r+" for reading and writing.

        Raises:
            InputError: a file is damaged or missing, or belongs to another table.
        """
        self.logits = self._map("logits.npy", np.float32, self.shape, mode)
        self.checks = self._map("checks.npy", np.int64, (self.shape[0], self.blocks), mode)
        try:
            found = json.loads((self.folder / "manifest.json").read_text())
        except (OSError, ValueError):
            found = None
        if found != self.manifest:
            raise self._bad("manifest.json", "is damaged or belongs to another table")

    def _map(self, name: str, dtype: type, shape: tuple[int, ...], mode: Literal["r", "r+"]) -> "np.memmap[Any, Any]":
        try:
            np.load(self.folder / name, mmap_mode="r", allow_pickle=False)  # "r+" would extend a truncated file
            array = np.load(self.folder / name, mmap_mode=mode, allow_pickle=False)
        except PermissionError as error:
            raise InputError(f"the soft targets in {self.folder / name} may not be read or written: {error}") from error
        except (OSError, ValueError, EOFError) as error:
            raise self._bad(name, "is torn (cut off) or is not an array") from error
        if array.dtype != dtype or array.shape != shape:
            raise self._bad(name, f"is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
        assert isinstance(array, np.memmap)
        return array

    def _bad(self, name: str, what: str) -> InputError:
        return InputError(
            f"the soft targets in {self.folder / name}: the file {what}; delete {self.folder} to make them again"
        )

    def is_complete(self) -> bool:
        """Whether the table is there, and all of it is written. It may be in a folder that can only be read."""
        if not all((self.folder / name).is_file() for name in ("logits.npy", "checks.npy", "manifest.json")):
            return False
        self.open("r")
        return not self.missing()

    # Generation

    def alone(self) -> AbstractContextManager[None]:
        """A context in which one run at a time generates this table. Other runs find it complete afterwards.

        Raises:
            BlockingIOError: another run is in it.
        """
        return locked(self.folder / "lock", wait=False)

    def missing(self) -> list[tuple[int, int]]:
        """The pairs (view, block) that are not written yet."""
        return [(int(v), int(b)) for v, b in zip(*np.nonzero(self.checks == -1), strict=True)]

    def rows(self, block: int) -> Tensor:
        """The numbers of the rows of a block, (n,) int64."""
        return torch.arange(block * BLOCK, min((block + 1) * BLOCK, self.shape[1]))

    def fill(self, view: int, block: int, logits: Tensor) -> None:
        """Writes the numbers (n, D) of one block.

        Raises:
            OSError: the file cannot be written, for example because the disk is full.
        """
        content = logits.float().cpu().numpy().tobytes()
        self._write("logits.npy", self.logits, (view, block * BLOCK, 0), content)
        # the checksum is written last: a block without a checksum is generated again
        self._write("checks.npy", self.checks, (view, block), np.int64(zlib.crc32(content)).tobytes())

    def _write(self, name: str, array: "np.memmap[Any, Any]", index: tuple[int, ...], content: bytes) -> None:
        """Writes bytes with ordinary file access. The memory map would write whole pages, and so overwrite what another
        computer writes to the same page; and on a full disk it would kill the process without an error message.
        """
        path, place = self.folder / name, int(np.ravel_multi_index(index, array.shape))
        try:
            with open(path, "r+b") as file:
                file.seek(array.offset + place * array.itemsize)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"could not write {path}: {error}") from error

    def verify(self) -> None:
        """Compares every block with its checksum.

        Raises:
            InputError: a block differs, or is missing.
        """
        for view in range(self.shape[0]):
            for block in range(self.blocks):
                rows = self.logits[view, block * BLOCK : (block + 1) * BLOCK]
                if zlib.crc32(np.ascontiguousarray(rows).tobytes()) != self.checks[view, block]:
                    raise self._bad("logits.npy", f"does not match its checksum at view {view}, block {block}")

    # Use

    def as_tensor(self) -> Tensor:
        """The numbers, (V, R, D) float32 on the CPU, memory-mapped. ``open`` must have been called."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to it
            return torch.from_numpy(self.logits)
