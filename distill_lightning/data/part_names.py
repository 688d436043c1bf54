"""Recognises the names of folders and files that stand for a part of the data: training, validation, test."""

import re

PARTS = ("train", "val", "test")
WORDS = {
    "train": ("train", "training", "trn", "tr"),
    "val": ("val", "valid", "validation", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
"""The words that name a part. Case is ignored."""
FILLERS = (
    "set", "sets", "data", "dataset", "image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo",
    "photos", "jpg", "jpeg", "jpegs", "png", "pngs", "seg", "split", "splits", "part", "folder", "folders", "cls",
    "class", "classes", "classification", "label", "labels", "labelled", "labeled", "annotation", "annotations",
    "metadata", "meta", "csv", "list", "lists", "file", "files", "gt", "truth", "ground", "raw", "small", "full", "dir",
    "resized",
)  # fmt: skip
"""Words that may stand beside such a word, and say nothing."""
PICTURE_WORDS = (
    "data",
    "image",
    "images",
    "img",
    "imgs",
    "picture",
    "pictures",
    "photo",
    "photos",
    "jpg",
    "jpeg",
    "png",
)
"""Words that say that there are pictures, and are no class."""
UNLABELLED = (
    "pred",
    "predict",
    "prediction",
    "predictions",
    "unlabelled",
    "unlabeled",
    "unlabel",
    "submission",
    "unsup",
)
"""Words for pictures without labels."""


def words_of(name: str) -> list[str]:
    """The words in a name, in lower case: ``TrainingSet_2017`` has "training" and "set"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    joined = [word for word in re.split(r"[^a-z]+", spaced.lower()) if word]
    return [part for word in joined for part in _split(word)]


def _split(word: str) -> list[str]:
    """Splits a word such as "trainset" into the two words that it consists of."""
    for part in (word for words in WORDS.values() for word in words if len(word) > 2):
        for filler in FILLERS:
            if word in (part + filler, filler + part):
                return [part, filler]
    return [word]


def part_of(name: str, also: tuple[str, ...] = ()) -> str | None:
    """The part that a name stands for without doubt; None if there is none.

    Args:
        name: the name of a folder, or of a file without its extension.
        also: further words that say nothing, such as the name of the data set.
    """
    words = words_of(name)
    parts = {part for part, known in WORDS.items() for word in words if word in known}
    others = [
        w for w in words if w not in FILLERS and w not in also and not any(w in known for known in WORDS.values())
    ]
    return parts.pop() if len(parts) == 1 and not others else None


def part_of_folders(path: str) -> str | None:
    """The part that a folder stands for, or the nearest one above it that stands for one; None if none does."""
    return next((part for part in map(part_of, reversed(path.split("/"))) if part), None)


def names_a_part(name: str) -> bool:
    """Whether a name has a word for a part among others: ``my_train`` has, as ``freight_train`` has."""
    return any(word in known for word in words_of(name) for known in WORDS.values())


def names_unlabelled(name: str) -> bool:
    """Whether a name says that its pictures have no labels."""
    return any(word in UNLABELLED for word in words_of(name))
