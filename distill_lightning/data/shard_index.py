"""The index of tar files in the form of webdataset, where the files of a sample share the beginning of their names:
``000123.jpg`` is a picture, and ``000123.cls`` or ``000123.json`` holds its label.

The index is made once, in the cache folder: where each picture lies, sorted by part, class and name, so that a picture
has the same position in whatever shard it lies. It is mapped into memory: of it a process holds 8 bytes for each
picture, the number of its class.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track

from distill_lightning.data.archives import refuse_size, tar_members
from distill_lightning.data.labelled import Labelled
from distill_lightning.data.layouts import IGNORE, Layout
from distill_lightning.data.part_names import PARTS, WORDS, words_of
from distill_lightning.data.shards import END, MemberNames, Shards, ShardStore
from distill_lightning.data.stores import shown
from distill_lightning.distributed import is_first
from distill_lightning.errors import InputError
from distill_lightning.files import atomic_write, is_url, locked, read_json
from distill_lightning.pillow_decoding import is_picture_name

FORM = 1
"""The version of the form of an index. An index of another version is made again."""
LABEL_KEYS = ("label", "labels", "cls", "class", "class_name", "category", "target")
"""The usual keys of the label in a JSON file, in the order in which they are tried."""
CLASS_FILES = ("classes.txt", "class_names.txt", "classnames.txt", "labels.txt")
"""The usual names of a file beside the shards that has the name of a class in each line."""
LARGEST_LABEL = 1 << 20
"""The largest size of a file with a label, in bytes."""
LONGEST_LABEL = 200
"""The longest label, in characters."""
LONGEST_NAME = 1000
"""The longest name of a picture, in bytes: the index gives each name as much room as the longest needs."""
Rows = npt.NDArray[Any]
"""For each picture the numbers of its shard and class, where it starts and its size in bytes, and its name."""


def shard_files(files: Sequence[str]) -> list[str]:
    """The tar files among the files of a folder, if there are no pictures beside them."""
    found = [name for name in files if name.endswith(END)]
    return found if found and not any(map(is_picture_name, files)) else []


def read_shards(
    shards: Shards, files: Sequence[str], parts: Mapping[str, str | Sequence[str]] | None, cache: Path
) -> tuple[ShardStore, Layout]:
    """Lists the pictures of a data set in shards by its index, which is made if there is none.

    Args:
        shards: the files.
        files: their names: tar files and, perhaps, a file of `CLASS_FILES`.
        parts: see ImageFolder; also the name of a shard stands for it.
        cache: the folder of the index.

    Raises:
        InputError: a shard is damaged, a picture has no label, or it is not clear what part a shard belongs to.
    """
    given = _given_parts([name for name in files if name.endswith(END)], parts or {}, shards.root)
    part_of_shard = {name: part or _part(name, shards.root) for name, part in given.items()}
    names = [name for name, part in part_of_shard.items() if part != IGNORE]
    listed = next((name for name in files if name in CLASS_FILES), None)
    state = [FORM, *([name, part_of_shard[name], shards.state(name)] for name in names)]
    state += [] if listed is None else [[listed, shards.state(listed)]]
    folder = shards.root if is_url(shards.root) else os.path.realpath(shards.root)
    key = json.dumps([folder, parts or {}], sort_keys=True)  # runs with other parts have an index of their own
    place = cache / f"shards-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    found = _read(place, state, shards.root)
    if found is None:
        with contextlib.ExitStack() as alone:
            with contextlib.suppress(OSError):  # of a folder that cannot be written to
                alone.enter_context(locked(place.with_suffix(".lock")))
            # another process of this machine may have made it meanwhile
            found = _read(place, state, shards.root, says=False)
            if found is None:
                class_names = None if listed is None else _lines_of(shards, listed)
                found = _write(place, state, *_indexed(shards, names, part_of_shard, class_names))
    rows, facts = found
    known = tuple(facts["class_names"])
    labels = torch.from_numpy(rows["label"].astype(np.int64))
    spans = {part: slice(*span) for part, span in facts["parts"].items()}
    labelled = {part: Labelled(MemberNames(names, rows, span), known, labels[span]) for part, span in spans.items()}
    said = f"{len(rows):,} pictures in {len(names):,} tar files of webdataset, whose index is {shown(place)}"
    return ShardStore(shards), Layout(labelled, known[: facts["trained"]], (said,), tuple(facts["warnings"]))


# The file of an index


def _read(place: Path, state: list[Any], root: str, says: bool = True) -> tuple[Rows, dict[str, Any]] | None:
    """The index in a file; None, and a line about it if ``says``, if it is damaged or if shards have changed."""
    facts_of = place.with_suffix(".json")
    if not facts_of.exists():
        return None
    try:
        facts = read_json(facts_of)
        digest = facts.pop("digest")
        rows = np.load(place, mmap_mode="r", allow_pickle=False)
        is_whole = digest == _digest(place, facts)
    except (InputError, OSError, ValueError, EOFError, KeyError):
        is_whole = False
    if is_whole and facts["state"] == state:
        return rows, facts
    if says and is_first():
        why = "its tar files have changed" if is_whole else f"its index {shown(place)} is damaged"
        print(f"{shown(root)}: {why}: it is indexed again", file=sys.stderr)
    return None


def _write(place: Path, state: list[Any], rows: Rows, facts: dict[str, Any]) -> tuple[Rows, dict[str, Any]]:
    """Writes an index. If the folder cannot be written to, the index is in memory, and the next run makes it again."""
    facts["state"] = state
    try:
        atomic_write(place, lambda file: np.save(file, rows))
        text = json.dumps({**facts, "digest": _digest(place, facts)})
        atomic_write(place.with_suffix(".json"), lambda file: file.write(text.encode()))
        return np.load(place, mmap_mode="r", allow_pickle=False), facts
    except OSError:
        return rows, facts


def _digest(place: Path, facts: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    with open(place, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# Making an index


def _indexed(
    shards: Shards, names: Sequence[str], part_of_shard: Mapping[str, str], class_names: Sequence[str] | None
) -> tuple[Rows, dict[str, Any]]:
    """The rows of an index, and the facts beside them: classes, parts and warnings."""
    labels: dict[str, int] = {}
    numbers = {name: str(number) for number, name in enumerate(class_names or ()) if not name.isdecimal()}
    left_out: Counter[str] = Counter()
    found = []
    console = Console(stderr=True)
    words = f"Indexing {shown(shards.root)}"
    for number, name in enumerate(track(names, words, console=console, disable=not console.is_terminal)):
        with shards.open(name) as file:
            samples = _samples(file, f"{shards.root}/{shown(name)}", left_out)
        of_shard = [
            (number, labels.setdefault(numbers.get(label, label), len(labels)), start, size, name_of)
            for name_of, label, start, size in samples
        ]
        found.append(np.array(of_shard, _form(max((len(row[4]) for row in of_shard), default=1))))
    rows = np.concatenate(found)
    if not len(rows):
        raise InputError(f"the tar files in {shards.root} hold no pictures with labels")
    part = np.array([PARTS.index(part_of_shard[name]) for name in names])[rows["shard"]]
    trained = {*rows["label"][part == 0].tolist()} or {*labels.values()}
    named = _named(list(labels), class_names, shards.root)
    order = sorted(labels.values(), key=lambda label: (label not in trained, named[label]))
    rows["label"] = np.argsort(order)[rows["label"]]
    # as the pictures of class folders are sorted: by the parts of a name, so that "/" comes before all characters
    by_name = np.char.replace(rows["name"], b"/", b"\x01")
    at = np.lexsort((rows["shard"], by_name, rows["label"], part))
    ends = np.searchsorted(part[at], range(len(PARTS) + 1)).tolist()
    return rows[at], {
        "class_names": [named[label][1] for label in order],
        "trained": len(trained),
        "parts": {p: [ends[i], ends[i + 1]] for i, p in enumerate(PARTS) if ends[i] < ends[i + 1]},
        "warnings": [f"{count:,} {what}: not used" for what, count in left_out.items()],
    }


def _form(longest: int) -> npt.DTypeLike:
    return np.dtype([("shard", "<i4"), ("label", "<i4"), ("start", "<i8"), ("size", "<i8"), ("name", f"S{longest}")])


def _samples(file: BinaryIO, where: str, left_out: Counter[str]) -> list[tuple[bytes, str, int, int]]:
    """The pictures of a shard: their names, labels, where they start and their sizes.

    Raises:
        InputError: the shard is damaged, or a sample has two pictures or no label.
    """
    pictures: dict[str, tuple[bytes, int, int]] = {}
    labels: dict[str, str] = {}
    for member in tar_members(file, where):
        name = str(PurePosixPath(member.name))
        folder, _, last = name.rpartition("/")
        stem, _, end = last.partition(".")
        key = f"{folder}/{stem}"
        if not member.isfile() or not stem:  # a folder, a link, or a hidden file
            continue
        if is_picture_name(name):
            if key in pictures:
                raise InputError(f"{where} has two pictures of the sample {shown(key.strip('/'))[:60]}: keep one")
            refuse_size(where, name, member.size)
            if len(os.fsencode(name)) > LONGEST_NAME:
                raise InputError(f"{where}: a name has more than {LONGEST_NAME:,} bytes: {shown(name)[:40]} ...")
            pictures[key] = os.fsencode(name), member.offset_data, member.size
        elif end == "cls" or (end == "json" and key not in labels):
            if member.size > LARGEST_LABEL:
                raise InputError(f"{where}: {shown(name)[:60]} has {member.size:,} bytes: expected a label")
            file.seek(member.offset_data)
            labels[key] = _label(file.read(member.size), end, f"{where}: {shown(name)[:60]}")
    if lost := [key for key in pictures if key not in labels]:
        raise InputError(
            f"{where}: {len(lost):,} of {len(pictures):,} pictures have no label, such as "
            f"{shown(lost[0].strip('/'))[:40]}: put NAME.cls or NAME.json beside NAME.jpg, or unpack into class folders"
        )
    left_out.update({"labels in tar files have no picture": len(labels.keys() - pictures.keys())})
    left_out.update({"pictures in tar files have the label -1": sum(labels[key] == "-1" for key in pictures)})
    left_out += Counter()  # without those that do not occur
    return [(picture[0], labels[key], *picture[1:]) for key, picture in pictures.items() if labels[key] != "-1"]


def _label(content: bytes, end: str, where: str) -> str:
    text: Any = content.decode(errors="replace").strip()
    if end == "json":
        try:
            read = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is no JSON: {str(error)[:60]}") from error
        text = next((read[key] for key in LABEL_KEYS if key in read), "") if isinstance(read, dict) else read
    label = "" if isinstance(text, bool) or not isinstance(text, str | int) else str(text)
    if not 0 < len(label) <= LONGEST_LABEL or not label.isprintable():
        raise InputError(f"{where} holds no label: expected a number or a name, in JSON under the key label")
    if label.removeprefix("-").isdecimal():
        label = str(int(label))  # 01 is 1
        if label.startswith("-") and label != "-1":
            raise InputError(f"{where} has the label {label}: expected 0 or more, or -1 for none")
    return label


def _named(labels: Sequence[str], class_names: Sequence[str] | None, root: str) -> list[tuple[int, str]]:
    """For each label what its class is sorted by, and the name of its class.

    Raises:
        InputError: a label has no class in the file of classes.
    """
    if class_names is None:
        return [(int(label) if label.isdecimal() else sys.maxsize, label) for label in labels]
    named = []
    for label in labels:
        if not label.isdecimal():
            raise InputError(f"a picture in {root} has the label {shown(label)[:40]}, which is no class name")
        number = int(label)
        if number >= len(class_names):
            raise InputError(
                f"a picture in {root} has the label {number}, but there are {len(class_names)} class names"
            )
        named.append((number, class_names[number]))
    return named


def _lines_of(shards: Shards, name: str) -> list[str]:
    with shards.open(name) as file:
        lines = [line.strip() for line in file.read(LARGEST_LABEL).decode(errors="replace").splitlines()]
    if twice := [line for line, count in Counter(lines).items() if count > 1 or not line]:
        raise InputError(
            f"{shards.root}/{name} has the line {shown(twice[0])!r} twice, or empty: expected a class a line"
        )
    return lines


def _given_parts(names: Sequence[str], given: Mapping[str, str | Sequence[str]], root: str) -> dict[str, str]:
    """For each shard the part that the option ``parts`` gives to it or to a folder around it; "" without.

    Raises:
        InputError: the option names a part or a folder that does not exist.
    """
    found = dict.fromkeys(names, "")
    for part, several in given.items():
        if part not in (*PARTS, IGNORE):
            raise InputError(f"data.parts has {part}: it takes {', '.join((*PARTS, IGNORE))}, each with a folder")
        for folder in [several] if isinstance(several, str) else several:
            inside = [name for name in names if f"{name}/".startswith(f"{folder.strip('/')}/")]
            if not inside:
                raise InputError(f"data.parts names {folder}, which is no tar file in {root} and no folder of some")
            found.update(dict.fromkeys(inside, part))
    return found


def _part(name: str, root: str) -> str:
    """The part that the name of a shard or of a folder around it stands for; training if there is none.

    Raises:
        InputError: a name has the words of two parts.
    """
    for piece in reversed(name.removesuffix(END).split("/")):
        found = {part for part, known in WORDS.items() if set(known) & set(words_of(piece))}
        if len(found) > 1:
            raise InputError(f"{root}: is {shown(name)} of {' or '.join(sorted(found))}? Say it with data.parts")
        if found:
            return found.pop()
    return "train"
