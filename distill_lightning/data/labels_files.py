"""Labels in CSV files and in files of JSON lines, with the path and the class of a picture in each row; and classes in
the names of files.
"""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from distill_lightning.data.layouts import Layout, Rows, arranged
from distill_lightning.data.part_names import PARTS, part_of, part_of_folders, words_of
from distill_lightning.data.stores import Listing, Store, parts_of, shown
from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import is_picture_name

ENDS = (".csv", ".tsv", ".jsonl", ".ndjson")
LARGEST = 512 << 20
"""The largest size of a file with labels, in bytes."""
PATHS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_name", "image_id",
    "imageid", "img", "img_path", "picture", "name", "id",
)  # fmt: skip
"""The usual names of the column with the path of a picture, in the order in which they are tried."""
LABELS = ("label", "labels", "class", "class_name", "category", "target", "breed", "species", "diagnosis", "y")
SPLITS = ("split", "part", "subset", "fold", "set", "usage", "data_set", "dataset", "partition")
COLUMNS = ("path", "label", "split")


def labels_files(listing: Listing, given: str | Sequence[str] | None) -> list[str]:
    """The files with labels: those that are given, or those in the uppermost folder that has some.

    Raises:
        InputError: a given file does not exist.
    """
    if given is not None:
        names = [given] if isinstance(given, str) else list(given)
        for name in names:
            if name not in listing.files:
                raise InputError(
                    f"data.labels names {name}, which is no file in data.root: give its path below data.root"
                )
        return names
    found = [name for name in listing.files if name.lower().endswith(ENDS)]
    found = [name for name in found if not {"submission", "sample"} & set(words_of(name.rpartition("/")[2]))]
    depth = min((name.count("/") for name in found), default=0)
    return [name for name in found if name.count("/") == depth]


def read_labels(
    store: Store, listing: Listing, files: Sequence[str], columns: Mapping[str, str] | None, root: str
) -> Layout:
    """Reads files with labels, and finds the pictures that they name.

    Args:
        store: contains the files and the pictures.
        listing: the names of all files.
        files: the files with labels. A column tells the part, else their names, else their folders, else the folders
            of the pictures; without, all are training pictures.
        columns: the names of the columns: "path", "label" and, if there is one, "split".
        root: the name of the folder or archive, for messages.

    Raises:
        InputError: a file has no such columns, or a row names no picture, more than one, or one that has another class.
    """
    for key in columns or {}:
        if key not in COLUMNS:
            raise InputError(f"data.columns has {key}: it takes {', '.join(COLUMNS)}, each with the name of a column")
    finder = _Finder(listing)
    parts: dict[str, Rows] = {}
    notes: list[str] = []
    seen: dict[str, tuple[str, str]] = {}
    for file in files:
        rows = _rows(store, file)
        if not rows:
            raise InputError(f"{shown(file)} has no rows: it must name a picture and its class in each row")
        found = _columns(rows, file, columns or {}, finder)
        if found is None:
            notes.append(f"{shown(file)} has no column of labels: not used")
            continue
        path, label, split = found
        folders, _, last = file.rpartition("/")
        of_file = part_of(last.rpartition(".")[0], tuple(words_of(root))) or part_of_folders(folders)
        for line, row in enumerate(rows, 2 if not file.lower().endswith((".jsonl", ".ndjson")) else 1):
            part = of_file
            if split is not None:
                part = part_of(row.get(split, ""))
                if part is None:
                    raise InputError(
                        f"{shown(file)}, line {line}: {split} is {row.get(split, '')[:30]!r}: "
                        "expected train, val or test"
                    )
            value, name = row.get(path, "").strip(), row.get(label, "").strip()
            if not value or not name:
                raise InputError(f"{shown(file)}, line {line}: it has no {label if value else path}")
            picture = finder.find(value, file, part or "train", line)
            part = part or part_of_folders(picture.rpartition("/")[0]) or "train"
            if (other := seen.setdefault(picture, (part, name))) != (part, name):
                raise InputError(f"{shown(file)}, line {line}: {shown(picture)} is {other[1]} ({other[0]}) elsewhere")
            if (picture, name) not in parts.setdefault(part, [])[-1:]:
                parts[part].append((picture, name))
        notes.append(f"{shown(file)}: {len(rows):,} rows, pictures in the column {path}, classes in {label}"
                     + (f", parts in {split}" if split else ""))  # fmt: skip
    parts = {part: sorted(set(parts[part])) for part in PARTS if part in parts}
    unused = len(finder.pictures - seen.keys())
    warnings = [f"{unused:,} pictures are in no file with labels: not used"] if unused else []
    of = parts.get("train") or [row for rows in parts.values() for row in rows]
    return arranged(parts, sorted({name for _, name in of}), notes, warnings)


def of_pattern(listing: Listing, pattern: str, root: str) -> Layout:
    """The classes in the names of files.

    Args:
        listing: the names of all files.
        pattern: the form of a name without its folder: "{class}_*.jpg". ``{class}`` stands for the class, ``{part}``
            for the part, * for any text.
        root: the name of the folder or archive, for messages.

    Raises:
        InputError: the pattern has no ``{class}``, or names do not have its form.
    """
    if pattern.count("{class}") != 1 or pattern.count("{part}") > 1:
        raise InputError(f"data.pattern is {pattern}: give {{class}} once, {{part}} once or not, and * for any text")
    pieces = re.split(r"(\{class\}|\{part\}|\*)", pattern)
    forms = {"{class}": "(?P<label>.+?)", "{part}": "(?P<part>.+?)", "*": ".*?"}
    form = re.compile("".join(forms.get(piece, re.escape(piece)) for piece in pieces))
    parts: dict[str, Rows] = {}
    odd = []
    names = [name for name in listing.files if is_picture_name(name)]
    for name in names:
        folders, _, file = name.rpartition("/")
        match = form.fullmatch(file)
        if match is None:
            odd.append(name)
            continue
        words = [match["part"]] if "{part}" in pattern else folders.split("/")
        part = next((part for part in map(part_of, words) if part), None)
        if part is None and "{part}" in pattern:
            odd.append(name)
            continue
        parts.setdefault(part or "train", []).append((name, match["label"]))
    if odd:
        raise InputError(
            f"{len(odd):,} of {len(names):,} names in {root} do not have the form {pattern}, such as "
            f"{shown(odd[0])[:60]}"
        )
    of = parts.get("train") or [row for rows in parts.values() for row in rows]
    return arranged(parts, sorted({label for _, label in of}), [f"classes in the names of the files: {pattern}"])


class _Finder:
    """Finds pictures by the end of their names, with or without the extension."""

    def __init__(self, listing: Listing) -> None:
        self.pictures = {name for name in listing.files if is_picture_name(name)}
        self.by_last: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.pictures, key=parts_of):
            last = name.rpartition("/")[2]
            self.by_last[last].append(name)
            self.by_last[last.rpartition(".")[0]].append(name)

    def candidates(self, value: str) -> list[str]:
        wanted = value.replace("\\", "/").removeprefix("./")
        found = self.by_last.get(wanted.rpartition("/")[2], [])
        return [n for n in found if f"/{n}".endswith(f"/{wanted}") or f"/{n.rpartition('.')[0]}".endswith(f"/{wanted}")]

    def find(self, value: str, file: str, part: str, line: int) -> str:
        found = self.candidates(value)
        if len(found) > 1:  # the folder of the file with labels, then the folder of the part, tells them apart
            beside = [n for n in found if n.rpartition("/")[0] == file.rpartition("/")[0]]
            of_part = [n for n in found if part in map(part_of, n.split("/")[:-1])]
            exact = [n for n in found if value.removeprefix("./") in (n, n.rpartition(".")[0])]
            found = next((some for some in (exact, beside, of_part) if len(some) == 1), found)
        if len(found) != 1:
            what = "no picture of data.root has this name" if not found else f"{len(found)} pictures have this name"
            raise InputError(f"{shown(file)}, line {line}: {shown(value)[:80]}: {what}")
        return found[0]


def _rows(store: Store, file: str) -> list[dict[str, str]]:
    if store.size(file) > LARGEST:
        raise InputError(f"{shown(file)} has {store.size(file):,} bytes: at most {LARGEST:,} are read")
    text = store.read(file).decode("utf-8-sig", errors="replace")
    if file.lower().endswith((".jsonl", ".ndjson")):
        rows = []
        for number, line in enumerate(text.split("\n"), 1):  # a string may hold other ends of lines
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{shown(file)}, line {number}: it is no JSON: {str(error)[:60]}") from error
            if not isinstance(row, dict):
                raise InputError(f"{shown(file)}, line {number}: expected an object with a path and a label")
            rows.append({str(k): str(v) for k, v in row.items() if isinstance(v, str | int | float) and v is not None})
        return rows
    head = text[:4096].partition("\n")[0]
    comma = max(",;\t|", key=head.count)
    try:
        return [{k: v or "" for k, v in row.items() if k} for row in csv.DictReader(io.StringIO(text), delimiter=comma)]
    except csv.Error as error:
        raise InputError(f"{shown(file)} is no CSV file: {str(error)[:80]}") from error


def _columns(
    rows: list[dict[str, str]], file: str, given: Mapping[str, str], finder: _Finder
) -> tuple[str, str, str | None] | None:
    """The columns of the path, of the label and of the part; None if there is no label."""
    names = list(rows[0])
    for key, name in given.items():
        if name not in names:
            raise InputError(
                f"data.columns names {key}: {name}, but {shown(file)} has the columns {', '.join(names)[:80]}"
            )
    small = {re.sub(r"[^a-z0-9]+", "_", name.strip().lower()): name for name in reversed(names)}
    split = given.get("split") or next((small[s] for s in SPLITS if s in small and _is_split(rows, small[s])), None)
    found = [small[p] for p in PATHS if p in small] + names
    path = given.get("path") or next((n for n in found if n != split and _names_pictures(rows, n, finder)), None)
    if path is None:
        path = next((small[p] for p in PATHS if p in small), None)  # the row that names no picture is found later
    if path is None:
        raise InputError(
            f"no column of {shown(file)} names pictures ({', '.join(names)[:60]}): give data.columns "
            "'{path: NAME, label: NAME}'"
        )
    label = given.get("label") or next((small[name] for name in LABELS if name in small and small[name] != path), None)
    left = [name for name in names if name not in (path, split)]
    if label is None and len(left) == 1:
        label = left[0]
    if label is None and len(left) > 1:
        raise InputError(
            f"which column of {shown(file)} is the class ({', '.join(left)[:80]})? Give data.columns '{{label: NAME}}'"
        )
    return None if label is None else (path, label, split)


def _names_pictures(rows: list[dict[str, str]], column: str, finder: _Finder) -> bool:
    some = [row.get(column, "").strip() for row in rows[:20]]
    return sum(bool(value and finder.candidates(value)) for value in some) * 2 > len(some)


def _is_split(rows: list[dict[str, str]], column: str) -> bool:
    some = rows[:: -(-len(rows) // 50)]
    named = sum(bool(part_of(row.get(column, ""))) for row in some)
    if 0 < named * 2 <= len(some):
        odd = next(row.get(column, "") for row in some if not part_of(row.get(column, "")))
        raise InputError(
            f"some values of the column {column} name a part, and others do not ({odd[:30]!r}): write train, val or "
            "test in it, or give it another name if it is no part"
        )
    return named * 2 > len(some)
