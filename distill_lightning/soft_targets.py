"""The table of soft targets on disk: raw logits of a teacher, for V views of every training sample.

A folder, named by a digest of all that the logits depend on, holds

    manifest.json   what they depend on, in words
    logits.npy      (V, R, K) float32, memory-mapped
    checks.npy      (V, blocks) int64: the CRC-32 of each block of rows, -1 where it is not written yet

so that a table of another teacher cannot be opened by mistake, generation goes on at the first missing block, and a
torn or altered file is found out. Several processes fill a table together, each its own blocks.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from distill_lightning.errors import InputError
from distill_lightning.files import write_whole

BLOCK = 256
"""Rows that are written and checked together."""


def digest_of(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:20]


class SoftTargetTable:
    """Logits by view and row.

    Args:
        parent: the folder that tables lie in.
        manifest: what the logits depend on; plain values.
        views, rows, classes: V, R, K.

    Raises:
        InputError: the files there are torn, altered or foreign.
    """

    def __init__(self, parent: str | Path, manifest: dict[str, Any], views: int, rows: int, classes: int) -> None:
        self.manifest = manifest | {"views": views, "rows": rows, "classes": classes, "format": 1}
        self.folder = Path(parent) / digest_of(self.manifest)
        self.shape = (views, rows, classes)
        self.blocks = -(-rows // BLOCK)

    def create(self) -> None:
        """Makes the files where they are not there. One process does it, before the others open."""
        if not (self.folder / "logits.npy").exists():
            write_whole(self.folder / "logits.npy", self._blank)
        if not (self.folder / "checks.npy").exists():
            unwritten = np.full((self.shape[0], self.blocks), -1, np.int64)
            write_whole(self.folder / "checks.npy", lambda file: np.save(file, unwritten))
        if not (self.folder / "manifest.json").exists():
            text = json.dumps(self.manifest, indent=2)
            write_whole(self.folder / "manifest.json", lambda file: file.write(text.encode()))

    def _blank(self, file: BinaryIO) -> None:
        """An array of zeros that takes no memory, nor, where the file system can, space."""
        header = {"descr": "<f4", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * int(np.prod(self.shape)))

    def open(self, mode: Literal["r", "r+"] = "r+") -> None:
        self.logits = self._map("logits.npy", np.float32, self.shape, mode)
        self.checks = self._map("checks.npy", np.int64, (self.shape[0], self.blocks), mode)
        try:
            found = json.loads((self.folder / "manifest.json").read_text())
        except (OSError, ValueError):
            found = None
        if found != self.manifest:
            raise self._bad("manifest.json", "does not say what this table is of")

    def _map(
        self, name: str, dtype: type, shape: tuple[int, ...], mode: Literal["r", "r+"]
    ) -> "np.memmap[Any, Any]":
        try:
            np.load(self.folder / name, mmap_mode="r", allow_pickle=False)  # for writing, numpy fills up a torn file
            array = np.load(self.folder / name, mmap_mode=mode, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._bad(name, "is torn or no array") from error
        if array.dtype != dtype or array.shape != shape:
            raise self._bad(name, f"is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
        assert isinstance(array, np.memmap)
        return array

    def _bad(self, name: str, what: str) -> InputError:
        return InputError(
            f"the soft targets in {self.folder / name}: the file {what}; delete {self.folder} to make anew"
        )

    # Generation

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One run at a time generates a table; another waits, and finds it done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w") as lock:
            with suppress(ImportError, OSError):  # not on this system, or not on this file system
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def missing(self) -> list[tuple[int, int]]:
        """Blocks (view, block) that are not written yet."""
        return [(int(v), int(b)) for v, b in zip(*np.nonzero(self.checks == -1), strict=True)]

    def rows(self, block: int) -> Tensor:
        """The numbers of its rows, (n,) int64."""
        return torch.arange(block * BLOCK, min((block + 1) * BLOCK, self.shape[1]))

    def fill(self, view: int, block: int, logits: Tensor) -> None:
        """Writes the logits (n, K) of one block.

        Raises:
            OSError: with the file's name, when the disk is full, say.
        """
        content = logits.float().cpu().numpy().tobytes()
        self._write("logits.npy", self.logits, (view, block * BLOCK, 0), content)
        # last: a block without it is written again
        self._write("checks.npy", self.checks, (view, block), np.int64(zlib.crc32(content)).tobytes())

    def _write(self, name: str, array: "np.memmap[Any, Any]", index: tuple[int, ...], content: bytes) -> None:
        """Not through the map, which writes whole pages: what another computer writes beside it would be lost, and a full
        disk would end the process without a word."""
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
        """(V, R, K) float32 on the CPU, memory-mapped."""
        return torch.from_numpy(self.logits)
