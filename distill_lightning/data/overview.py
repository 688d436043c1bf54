"""What a data set looks like, in one screen: parts, classes, counts, sizes, and what is suspicious."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distill_lightning.data.labelled import Labelled
from distill_lightning.data.layouts import Layout
from distill_lightning.data.picture_files import Pictures, Survey, survey
from distill_lightning.data.sources import MemorySource, Source
from distill_lightning.data.splits import Split
from distill_lightning.data.stores import Store, shown
from distill_lightning.data.unlabelled import Unlabelled

FEW = 10
"""A class with fewer training pictures is suspicious."""
UNEVEN = 10
"""Classes are imbalanced if the largest has this many times as many pictures as the smallest."""
MOST_COMPARED = 500_000
"""The largest number of files that are searched for duplicates."""
SHOWN = 12
"""The largest number of classes whose counts are listed."""


def of_splits(splits: Mapping[str, Split | None], class_names: Sequence[str], held_out: bool) -> list[str]:
    """A line for each part, with the counts of its classes.

    Args:
        splits: the parts by name; None for a part that does not exist or was not read.
        class_names: the names of the classes.
        held_out: whether the validation pictures are held out of the training part.
    """
    lines = []
    for part, split in splits.items():
        if split is None or split.labels is None:
            continue
        counts = split.labels[split.taken].bincount(minlength=len(class_names))
        from_train = ", held out of the training part" if part == "val" and held_out else ""
        lines.append(f"  {part + ':':6} {len(split):,} pictures{from_train} ({_counts(counts, class_names)})")
    return lines


def _counts(counts: Tensor, names: Sequence[str]) -> str:
    if len(names) <= SHOWN:
        return ", ".join(f"{shown(name)} {count:,}" for name, count in zip(names, counts.tolist(), strict=True))
    low, high = int(counts.argmin()), int(counts.argmax())
    return f"{int(counts[low]):,} of {shown(names[low])} to {int(counts[high]):,} of {shown(names[high])}"


def of_unlabelled(part: Unlabelled, batch_size: int) -> str:
    """A line about the training pictures without labels.

    Args:
        part: the pictures.
        batch_size: the number of pictures in a global batch.
    """
    where = "the rest of the training part"
    if part.files is not None:
        seen = survey(part.files.store, part.files.names)
        where = f"of {shown(part.files.store.root)[-50:]}" + (f" ({_files(seen)})" if seen.headers else "")
    return f"  unlabelled: {len(part.index):,} pictures, {where}; {part.rows} of the {batch_size} in a batch"


def shared_pictures(unlabelled: Source, splits: Mapping[str, Split | None]) -> list[str]:
    """Sentences about unlabelled pictures that are also evaluated. Pictures in memory are compared, pixel by pixel."""
    if not isinstance(unlabelled, MemorySource):
        return ["unlabelled pictures that are decoded when they are needed were not compared with those of test"]
    mine, lines = _digests(unlabelled.images), []
    for part, split in splits.items():
        if split is not None and isinstance(split.source, MemorySource):
            both = len(mine & _digests(split.source.images[split.taken]))
            lines += [f"{both:,} unlabelled pictures are also in {part}"] if both else []
    return lines


def _digests(images: Tensor) -> set[bytes]:
    return {hashlib.sha256(image.numpy().tobytes()).digest() for image in images}


def imbalance(split: Split, class_names: Sequence[str]) -> list[str]:
    """Sentences about training classes with few pictures, and about large differences between classes."""
    assert split.labels is not None
    counts = split.labels[split.taken].bincount(minlength=len(class_names))
    few = [f"{shown(class_names[k])} ({int(counts[k])})" for k in counts.argsort().tolist() if counts[k] < FEW]
    lines = []
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        lines.append(f"classes with fewer than {FEW} training pictures: {', '.join(few[:5])}{more}")
    smallest = max(int(counts.min()), 1)
    if int(counts.max()) >= UNEVEN * smallest:
        lines.append(
            f"the largest class has {int(counts.max()) / smallest:.0f} times as many pictures as the smallest: see "
            "data.class_weights and data.balanced"
        )
    return lines


def of_files(layout: Layout, seen: Survey, size: int, is_given: bool) -> list[str]:
    """Lines about the layout and the files.

    Args:
        layout: the layout.
        seen: the headers of some training pictures.
        size: the side of the pictures for the network.
        is_given: whether the user has given it.
    """
    lines = [f"  found: {note}" for note in layout.notes]
    if not seen.headers:
        return lines
    lines.append(f"  files: {_files(seen)}")
    lines.append(f"  size:  {_size(size, seen.side, is_given)}")
    if any(header.deep for header in seen.headers):
        lines.append(f"  depth: pictures with 16 bits, whose values use {seen.bits} (data.bit_depth)")
    return lines


def _files(seen: Survey) -> str:
    formats = Counter(header.format for header in seen.headers)
    sizes = [(header.width, header.height) for header in seen.headers]
    smallest, largest = (pick(sizes, key=lambda size: size[0] * size[1]) for pick in (min, max))
    extent = "x".join(map(str, smallest))
    extent += "" if smallest == largest else f" to {largest[0]}x{largest[1]}"
    what = ", ".join(f"{name} {count / len(sizes):.0%}" for name, count in formats.most_common(4))
    return f"{what}; {extent}, the median of the shorter side is {seen.side}"


def _size(size: int, side: int, is_given: bool) -> str:
    if not is_given:
        return f"{size}x{size}, from the median of the files (data.image_size changes it)"
    if size == side:
        return f"{size}x{size}, as the files"
    times = size**2 / side**2
    if size < side:
        words = f"1/{1 / times:.1f} of the computation at the size of the files"
        return f"{size}x{size}, reduced from {side}: {words}"
    return (
        f"{size}x{size}, enlarged from {side}: {times:.1f} times the computation of --data.image_size {side}, "
        "and no more detail"
    )


def suspicions(
    store: Store, parts: Mapping[str, Labelled], seen: Survey, unlabelled: Pictures | None = None
) -> list[str]:
    """Sentences about what is suspicious in the files: duplicates, pictures with two classes, grey among colour."""
    count = sum(map(len, parts.values())) + (0 if unlabelled is None else len(unlabelled))
    if count > MOST_COMPARED:
        lines = [f"duplicates were not looked for among {count:,} files, more than {MOST_COMPARED:,}"]
    else:
        rows = [_File(part, store, name, label) for part, pictures in parts.items() for name, label in pictures]
        if unlabelled is not None:
            rows += [_File("unlabelled", unlabelled.store, name, None) for name in unlabelled.names]
        lines = _duplicates(rows)
    grey = sum(header.mode in ("L", "LA", "1") or header.mode.startswith("I;16") for header in seen.headers)
    if 0 < grey < len(seen.headers) / 2:
        lines.append(f"{grey:,} of {len(seen.headers):,} pictures that were looked at are grey among colour")
    return lines


class _File(NamedTuple):
    """A picture file of a part. ``label`` is None if it has none."""

    part: str
    store: Store
    name: str
    label: str | None


def _duplicates(rows: Sequence[_File]) -> list[str]:
    by_size: dict[int, list[_File]] = defaultdict(list)
    for row in rows:
        try:
            by_size[row.store.size(row.name)].append(row)
        except OSError:
            continue  # a link to nothing is reported when the pictures are read
    by_content: dict[bytes, list[_File]] = defaultdict(list)
    for size, same in by_size.items():
        for row in same if len(same) > 1 and size else ():
            try:
                by_content[hashlib.sha256(row.store.read(row.name)).digest()].append(row)
            except OSError:
                continue
    found = [same for same in by_content.values() if len(same) > 1]
    lines = []
    for a, b in (("train", "val"), ("train", "test"), ("val", "test"), ("unlabelled", "val"), ("unlabelled", "test")):
        both = [same for same in found if {a, b} <= {row.part for row in same}]
        if both:
            pair = [next(shown(row.name) for row in both[0] if row.part == wanted) for wanted in (a, b)]
            lines.append(f"{len(both):,} pictures of {b} are also in {a}, such as {pair[1]} = {pair[0]}")
    twice = sum(len(same) > len({row.part for row in same}) for same in found)
    if twice:
        lines.append(f"{twice:,} pictures are there twice in the same part")
    torn = [same for same in found if len({row.label for row in same} - {None}) > 1]
    if torn:
        names = " = ".join(shown(row.name) for row in torn[0][:2])
        lines.append(f"{len(torn):,} pictures have two classes, such as {names}")
    return lines


def memory(splits: Mapping[str, Split | None], shape: tuple[int, int, int]) -> str:
    """Where the pictures are held, in words."""
    held = {id(split.source): split.source for split in splits.values() if split is not None}
    total = sum(len(source) for source in held.values()) * int(torch.tensor(shape).prod())
    on_disk = any(not hasattr(source, "images") for source in held.values())
    return "decoded when they are needed" if on_disk else f"{total / 1e6:,.1f} MB in memory"
