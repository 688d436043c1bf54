"""Pictures of one's own: in folders, a zip or tar file, with a file of labels, in shards, or in tables."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor

from distill_lightning.data import overview
from distill_lightning.data.bad_pictures import counts_of
from distill_lightning.data.base import ImageData
from distill_lightning.data.labelled import Labelled
from distill_lightning.data.layouts import Layout
from distill_lightning.data.options import REST
from distill_lightning.data.own_layout import find_pictures_of
from distill_lightning.data.part_names import PARTS
from distill_lightning.data.picture_cache import default_cache
from distill_lightning.data.picture_files import (
    FileSource,
    Pictures,
    Survey,
    read_pictures,
    survey,
)
from distill_lightning.data.provenance import differ
from distill_lightning.data.sources import Source
from distill_lightning.data.stores import Store, shown
from distill_lightning.data.unlabelled import find_unlabelled
from distill_lightning.distributed import is_first
from distill_lightning.errors import InputError
from distill_lightning.ranges import CountOrZero, Range

Side = Annotated[int, Range(1, 8192)]
"""In pixels. The largest picture takes 800 MB as float32."""
Bits = Annotated[int, Range(8, 16)]
USUAL_SIDE = 224
"""The largest picture size that is chosen if none is given."""
STEP = 8
"""A chosen picture size of more than 32 pixels is a multiple of this number."""


class ImageFolder(ImageData):
    """Pictures of your own.

    ``root`` is a folder, a zip file or a tar file, or the URL of tar files that fsspec can read. The layout is found by
    itself: class folders alone; folders for training, validation and test with class folders, under any of their usual
    names; class folders with such folders in them; a CSV file or JSON lines with a path and a class in each row;
    Parquet or Arrow files of Hugging Face ``datasets``; tar files of webdataset, with ``NAME.cls`` or ``NAME.json``
    beside ``NAME.jpg``; or, with ``pattern``, the class in the name of each file. Validation and test may be missing.

    Args:
        root: the folder or archive, or the URL.
        image_size: the side of the square pictures in pixels. The shorter side of a file is resized to it, and the
            centre is cropped. By default it is the median of the shorter sides, at most 224 and, above 32, rounded
            down to a multiple of 8.
        grey: whether the pictures have one channel instead of three.
        cache: the folder for decoded pictures and for the index of tar files; by default in the user's cache folder.
        parts: the folder of a part, if its name does not tell: {"test": "holdout"}. The keys are "train", "val" and
            "test", and "ignore" for folders that are not used; a value may be a list.
        labels: files with a path and a class in each row, relative to ``root``; by default those that lie in it, if
            there are no class folders.
        columns: the names of the columns "path", "label" and "split" in these files, if they are not usual ones.
        pattern: the form of the names of files that have the class in them: "{class}_*.jpg". ``{class}`` stands for
            the class, ``{part}`` for the part, * for any text.
        bad_pictures: "refuse" lists all files that cannot be decoded, and stops; "skip" trains without them.
        other_classes: what is done with validation and test pictures of classes without training pictures: "refuse"
            stops, "leave_out" leaves them out.
        bit_depth: how many bits the values of pictures with 16 bits use, 8 to 16; by default as many as the largest
            value needs, of 2,000 pictures at equal distances; larger values are cut to white.
        from_files: whether pictures are decoded by ``num_workers`` processes when they are needed, and not once into
            memory; by default if they take more than 4 GB in memory. A RandomResizedCrop that comes first in
            ``augment`` then cuts from the whole picture of the file.
        cache_bytes: the largest size of the tar files from elsewhere that are kept in the folder ``cache``; none are by
            default, and each picture is fetched when it is needed.
        kwargs: see ImageData.

    Raises:
        InputError: an option is out of range. Reading raises it if the folder is missing or empty, if it is not clear
            what a part of it is, or if pictures cannot be decoded.
    """

    later_options: ClassVar[Mapping[str, Any]] = {"bad_pictures": "refuse", "other_classes": "refuse", "cache_bytes": 0}
    free_options: tuple[str, ...] = ("cache", "cache_bytes")
    takes_urls = True
    writes_to = ("cache",)
    """Options that name folders to write to. Their values are not taken from a file, such as a checkpoint."""

    def __init__(
        self,
        root: str,
        image_size: Side | None = None,
        grey: bool = False,
        cache: str | None = None,
        parts: dict[str, str | list[str]] | None = None,
        labels: str | list[str] | None = None,
        columns: dict[str, str] | None = None,
        pattern: str | None = None,
        bad_pictures: Literal["refuse", "skip"] = "refuse",
        other_classes: Literal["refuse", "leave_out"] = "refuse",
        bit_depth: Bits | None = None,
        from_files: bool | None = None,
        cache_bytes: CountOrZero = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        if pattern is not None and labels is not None:
            raise InputError("data.pattern and data.labels both say where the classes are: give one of them")
        self.given_size, self.given_depth = image_size, bit_depth
        self.channels = 1 if grey else 3
        self.cache = Path(cache) if cache is not None else default_cache()
        self.parts, self.labels, self.columns, self.pattern = parts, labels, columns, pattern
        self.cache_bytes = cache_bytes
        self.bad_pictures, self.other_classes, self.from_files = bad_pictures, other_classes, from_files
        self._said: set[str] = set()
        self._read: dict[str, tuple[Pictures, Source]] = {}

    def forget_pictures(self) -> None:
        """See ImageData."""
        super().forget_pictures()
        self._read = {}
        if "_was_trained_on" in vars(self):
            del self._was_trained_on

    # Description

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the folder ``root``, or of the archive without its extension."""
        path = Path(self.root.rpartition("://")[2]).resolve()
        return path.name if path.is_dir() else path.stem

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes or, for a checkpoint, those that it was trained on.

        Raises:
            InputError: there are fewer than two classes.
        """
        if self.trained_on is not None:
            return list(self.trained_on.info.class_names)
        return self.own_class_names

    @property
    def own_class_names(self) -> list[str]:
        """The names of the classes in the training part or, without one, in all parts, whatever a checkpoint says.

        Raises:
            InputError: there are fewer than two classes.
        """
        names = list(self.layout.class_names)
        if len(names) < 2:
            raise InputError(
                f"{self.root} has {len(names)} class folders: there must be 2 or more, a CSV file of labels, or "
                "data.pattern"
            )
        return names

    @property
    def image_size(self) -> int:  # type: ignore[override]
        """The side of the pictures: given, of the checkpoint, or the median of the shorter sides; see the class."""
        if self.given_size is not None:
            return self.given_size
        if self.trained_on is not None:
            return self.trained_on.info.image_size
        side = min(self.survey.side, USUAL_SIDE)
        if not side:
            raise InputError(f"no picture in {self.root} can be decoded: replace them")
        return side if side <= 32 else side // STEP * STEP

    @property
    def bit_depth(self) -> int:
        """How many bits the values of pictures with 16 bits use: given, of the checkpoint, or of the training part."""
        if self.given_depth is not None:
            return self.given_depth
        return self.survey.bits if self.trained_on is None else self.trained_on.info.bit_depth

    # Layout

    @cached_property
    def _found(self) -> tuple[Store, Layout]:
        given = self.parts, self.labels, self.columns, self.pattern
        return find_pictures_of(self.root, self.name, *given, self.cache, self.cache_bytes)

    @property
    def layout(self) -> Layout:
        """The parts and classes that were found in ``root``."""
        return self._found[1]

    @cached_property
    def survey(self) -> Survey:
        """The headers of some training pictures or, without a training part, of some of another part."""
        store, layout = self._found
        rows = layout.parts.get("train") or next(iter(layout.parts.values()), None)
        return survey(store, rows.names if rows else [])

    # Reading

    def refuse_other_classes(self, trained: Sequence[str], where: str) -> None:
        """See ImageData. The test part may lack classes, and with ``other_classes`` it may have more."""
        own = self.own_class_names
        new = set(own) - set(trained)
        if not set(own) & set(trained) or (new and self.other_classes == "refuse"):
            hint = "" if new == set(own) else "; data.other_classes leave_out leaves new ones out"
            raise InputError(
                f"{where[-60:]} was trained on other classes than {self.name} has: {differ(trained, own)}{hint}"
            )

    def prepare_data(self) -> None:
        """Decodes the pictures into the cache, on one process per node."""
        if self.trained_on is None:
            for part in PARTS:
                self.read(part)
            if self.unlabelled not in (None, REST):
                self._decoded(find_unlabelled(str(self.unlabelled), self))
        elif self.pictures is None:
            self.read("test")

    def read(self, part: str) -> tuple[Source, Tensor] | None:
        """See ImageData."""
        store, layout = self._found
        if part not in layout.parts and not (part == "test" and self.is_a_test_part):
            return None
        rows = layout.parts[part] if part in layout.parts else layout.parts["train"]
        if layout.empty and part == "train":
            raise InputError(f"{self.root}/{layout.empty[0]} holds no pictures: each class needs some")
        rows = self._of_known_classes(part, rows)
        files = Pictures(store, rows.names, self.channels, self.image_size, self.bit_depth, part)
        return self._decoded(files), rows.numbered(self.class_names)

    def decode_unlabelled(self, files: Pictures) -> Source:
        """See ImageData."""
        return self._decoded(files)

    def _decoded(self, files: Pictures) -> Source:
        skip = self.bad_pictures == "skip"
        source = read_pictures(files, self.num_workers, self.cache, skip, self.from_files)
        self._read[files.part] = files, source
        if isinstance(source, FileSource):
            source.on_bad = self._found_bad
        elif source.bad:
            kinds = counts_of({str(i): kind for i, kind in source.bad.items()})
            some = f"{len(source.bad):,} of {len(files):,} pictures of the {files.part} part"
            self._warn(f"{some} cannot be read and are left out ({kinds})")
        return source

    def _found_bad(self) -> None:
        bad = self.bad_files()
        self._warn(f"{len(bad):,} pictures cannot be read so far, and are replaced ({counts_of(bad)})")
        self.list_bad_files()

    def bad_files(self) -> dict[str, str]:
        """See ImageData."""
        return {files.names[i]: kind for files, source in self._read.values() for i, kind in sorted(source.bad.items())}

    def describe_files(self) -> tuple[list[str], list[str]]:
        """See ImageData."""
        store, layout = self._found
        facts = overview.of_files(layout, self.survey, self.image_size, self.given_size is not None)
        unlabelled = None if self.unlabelled_part is None else self.unlabelled_part.files
        return facts, [*layout.warnings, *overview.suspicions(store, layout.parts, self.survey, unlabelled)]

    @property
    def is_a_test_part(self) -> bool:
        """See ImageData: class folders alone, for a checkpoint that was trained on other data."""
        return self.trained_on is not None and list(self.layout.parts) == ["train"] and not self._was_trained_on

    @cached_property
    def _was_trained_on(self) -> bool:
        """Whether the checkpoint was trained on the pictures in ``root``, also if they have changed since."""
        if self.own_class_names != self.class_names or self.trained_on is None:
            return False
        if self.trained_on.root is not None and os.path.realpath(self.trained_on.root) == os.path.realpath(self.root):
            return True
        own = ImageFolder(
            self.root, self.image_size, self.channels == 1, str(self.cache), bad_pictures="skip", parts=self.parts,
            labels=self.labels, columns=self.columns, pattern=self.pattern, bit_depth=self.bit_depth,
            from_files=self.from_files, cache_bytes=self.cache_bytes,
        )  # fmt: skip
        own.setup("fit")
        return own.fingerprint == self.trained_on.info.fingerprint

    def _of_known_classes(self, part: str, rows: Labelled) -> Labelled:
        """The pictures of the classes that are trained on, after what is missing was said.

        Raises:
            InputError: there are other classes, and ``other_classes`` is "refuse".
        """
        known, there = self.class_names, set(rows.present)
        odd = sorted(there - set(known))
        if odd and (self.other_classes == "refuse" or part == "train"):
            some = ", ".join(shown(name) for name in odd)[:60]
            raise InputError(
                f"the {part} part of {shown(self.root)[-50:]} has classes that are not trained on: {some}; "
                "remove them, or give data.other_classes leave_out"
            )
        lacking = [name for name in known if name not in there]
        if lacking and part != "train":
            self._warn(f"the {part} part lacks {some_of(lacking)}: no picture of these classes is evaluated")
        if odd:
            self._warn(f"the {part} part has {some_of(odd)}, which are not trained on: their pictures are left out")
        left = rows.without(odd)
        if not len(left):
            raise InputError(f"the {part} part of {self.root} has no picture of {some_of(known)}: give one that has")
        return left

    def _warn(self, line: str) -> None:
        if line not in self._said and is_first():
            print(f"{self.name}: {line}", file=sys.stderr)
            self._said.add(line)


def some_of(names: Iterable[str], count: int = 5) -> str:
    """Some of the names, and how many others there are."""
    every = [shown(name) for name in names]
    left = f" and {len(every) - count:,} more" if len(every) > count else ""
    return f"the class{'es' if len(every) > 1 else ''} {', '.join(every[:count])}{left}"
