"""Folders of Hugging Face ``datasets``: Parquet or Arrow files with a column of pictures and a column of labels.

Arrow files (of ``save_to_disk``) are mapped into memory, and a picture is read alone. Of Parquet files a whole group of
rows is read for it, which cannot be avoided: its pages are compressed together. The last `GROUPS` groups are held, so
that memory does not grow with the data. Only pyarrow is needed, the extra ``huggingface``.
"""

import io
import json
import os
import threading
from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from distill_lightning.data.part_names import part_of, part_of_folders
from distill_lightning.data.stores import Listing, Store, junk_kind, stamp
from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import is_picture_name

ENDS = (".parquet", ".arrow")
GROUPS = 8
"""The number of groups of rows of Parquet files that a process holds."""
PICTURE_COLUMNS = ("image", "img", "picture", "pixels")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "category", "target")


class TableStore:
    """A folder of Parquet or Arrow files. A picture's name is ``<file>:<row>``.

    Args:
        root: the folder.
        column: the name of the column of pictures.
        stamps: the ``stamp`` of each file, by its path below the folder.
    """

    def __init__(self, root: Path, column: str, stamps: Mapping[str, tuple[int, int]]) -> None:
        self.root, self.column, self.stamps = root, column, stamps

    def listing(self) -> Listing:
        """See Store. The rows are listed by ``read_tables``, with their labels."""
        return Listing((), (), {})

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self.read(name))

    def read(self, name: str) -> bytes:
        file, _, row = name.rpartition(":")
        table = _opened(str(self.root / file), os.getpid(), self.stamps[file])
        cell = table.cell(int(row), self.column)
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise OSError("the table holds no bytes of the picture, only its path")
        return content

    def state(self, name: str) -> str:
        stat = (self.root / name.rpartition(":")[0]).stat()
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def size(self, name: str) -> int:
        return len(self.read(name))


class _Table:
    """An open file."""

    def __init__(self, path: str) -> None:
        import pyarrow
        import pyarrow.parquet

        self.parquet: Any = None
        self.starts = [0]
        try:
            if path.endswith(".parquet"):
                self.parquet = pyarrow.parquet.ParquetFile(path, memory_map=True)
                self.schema = self.parquet.schema_arrow
                counts = [self.parquet.metadata.row_group(i).num_rows for i in range(self.parquet.num_row_groups)]
            else:
                mapped = pyarrow.memory_map(path)
                try:
                    batches = list(pyarrow.ipc.open_stream(mapped))  # as datasets writes it
                except pyarrow.ArrowInvalid:
                    mapped.seek(0)
                    reader = pyarrow.ipc.open_file(mapped)
                    batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
                if not batches:
                    raise ValueError("it has no rows")
                self.batches, self.schema = batches, batches[0].schema
                counts = [len(batch) for batch in batches]
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {str(error).splitlines()[0][:100]}") from error
        for count in counts:
            self.starts.append(self.starts[-1] + count)
        self.lock = threading.Lock()  # two threads that read one Parquet file crash the process

    def __len__(self) -> int:
        return self.starts[-1]

    def column(self, name: str) -> list[Any]:
        """All values of a column."""
        if self.parquet is not None:
            read = self.parquet.read(columns=[name], use_threads=False)
            values: list[Any] = read.column(name).to_pylist()
            return values
        return [value for batch in self.batches for value in batch.column(name).to_pylist()]

    def cell(self, row: int, name: str) -> Any:
        """One value of a column."""
        group = bisect_right(self.starts, row) - 1
        column = self.batches[group].column(name) if self.parquet is None else row_group(self, group, name)
        return column[row - self.starts[group]].as_py()

    @property
    def largest_group(self) -> int:
        """The number of rows that are read for a picture."""
        return max(b - a for a, b in pairwise(self.starts)) if self.parquet is not None else 1


@lru_cache(maxsize=GROUPS)
def row_group(table: _Table, group: int, name: str) -> Any:
    """A column of a group of rows."""
    with table.lock:
        return table.parquet.read_row_group(group, columns=[name], use_threads=False).column(name)


@lru_cache(maxsize=64)
def _opened(path: str, process: int, stamp: tuple[int, int]) -> _Table:
    return _Table(path)


def table_files(root: Path) -> list[Path]:
    """The Parquet and Arrow files in a folder and its subfolders, without those of caches; empty if there are picture
    files, too.
    """
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if junk_kind(name, True) is None)
        for name in sorted(files):
            if is_picture_name(name) and junk_kind(name, False) is None:
                return []
            if name.endswith(ENDS) and junk_kind(name, False) is None and not name.startswith("cache-"):
                found.append(Path(folder) / name)
    return found


def read_tables(root: Path) -> tuple[Store, dict[str, list[tuple[str, str]]], list[str] | None, list[str]]:
    """Lists the pictures of a folder of tables.

    Args:
        root: the folder.

    Returns:
        The store; for each part the names and classes of its pictures; the names of the classes in their order, if the
        tables give one; and sentences about what was found.

    Raises:
        InputError: pyarrow is not installed, a file is damaged, or it has no column of pictures or of labels.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{root} holds Parquet or Arrow files, which need pyarrow: pip install 'distill_lightning[huggingface]'"
        ) from error
    parts: dict[str, list[tuple[str, str]]] = {}
    names: list[str] | None = None
    picture = label = ""
    largest = 1
    stamps: dict[str, tuple[int, int]] = {}
    of_names = {path: _part(path.relative_to(root).as_posix()) for path in table_files(root)}
    unnamed = next((path for path, part in of_names.items() if part is None), None)
    if unnamed is not None and any(of_names.values()):
        raise InputError(
            f"which part is {unnamed.relative_to(root)}? Others are named train, val or test: rename it or move it away"
        )
    for path in of_names:
        relative = path.relative_to(root).as_posix()
        table = _opened(str(path), os.getpid(), stamps.setdefault(relative, stamp(path)))
        picture = _one_of(table.schema.names, PICTURE_COLUMNS, path, "pictures")
        label = _one_of(table.schema.names, LABEL_COLUMNS, path, "labels")
        names = _class_names(table.schema, label) or names
        part, largest = of_names[path] or "train", max(largest, table.largest_group)
        values = table.column(label)
        if names is not None and all(isinstance(v, int) for v in values):
            if odd := next((v for v in values if not -1 <= v < len(names)), None):
                raise InputError(f"{path} has the label {odd}, but {len(names)} classes: it is damaged")
            values = [names[v] if v >= 0 else None for v in values]
        rows = [(f"{relative}:{i:09d}", str(value)) for i, value in enumerate(values) if value is not None]
        parts.setdefault(part, []).extend(rows)
    notes = [f"tables of Hugging Face datasets, pictures in the column {picture}, labels in {label}"]
    if largest > 1:
        notes.append(
            f"Parquet: a picture that is decoded when it is needed reads a group of up to {largest:,} rows; Arrow "
            "files and tar files of webdataset read it alone"
        )
    return TableStore(root, picture, stamps), parts, names, notes


def _part(relative: str) -> str | None:
    """The part that a file belongs to, by the name of its folder or its own; None if neither names one."""
    folders, _, file = relative.rpartition("/")
    return part_of(file.partition("-")[0].partition(".")[0]) or part_of_folders(folders)


def _one_of(columns: list[str], known: tuple[str, ...], path: Path, what: str) -> str:
    for name in known:
        for column in columns:
            if column.lower() == name:
                return column
    raise InputError(f"{path} has the columns {', '.join(columns)[:80]}: none of {', '.join(known)} for the {what}")


def _class_names(schema: Any, label: str) -> list[str] | None:
    """The names of the classes in the metadata that ``datasets`` writes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
