"""Lists and refuses pictures that cannot be decoded."""

from collections import Counter
from pathlib import Path

from rich.console import Console

from distill_lightning.data.stores import shown
from distill_lightning.errors import InputError
from distill_lightning.files import atomic_write
from distill_lightning.pillow_decoding import BadPictureError


def refuse_bad(bad: dict[str, str], count: int, where: str | Path) -> None:
    """Lists the pictures that cannot be decoded on stderr, and refuses them.

    Args:
        bad: what is wrong with each of them, by name.
        count: the number of all pictures.
        where: the folder, for the message.

    Raises:
        InputError: always.
    """
    for line in lines_of_bad(bad):
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(line)
    if len(bad) == 1:
        (name, kind), *_ = bad.items()
        raise InputError(f"{shown(name)[-80:]} is {_words(kind)}: replace or remove it, or give data.bad_pictures skip")
    first = shown(next(iter(bad)))[-40:]
    raise InputError(
        f"{len(bad):,} of {count:,} pictures in {shown(where)[-40:]} cannot be read ({counts_of(bad)[:60]}), such as "
        f"{first}: replace them, or give data.bad_pictures skip"
    )


def lines_of_bad(bad: dict[str, str]) -> list[str]:
    """One line for each picture that cannot be decoded."""
    return [f"{shown(name)}: {kind}" for name, kind in bad.items()]


def write_bad(folder: Path, bad: dict[str, str], rank: int) -> None:
    """Writes these lines into ``bad_pictures.txt`` in a folder, or into a file of its own for a process of rank > 0."""
    text = "".join(f"{line}\n" for line in lines_of_bad(bad))
    name = "bad_pictures.txt" if rank == 0 else f"bad_pictures-{rank}.txt"
    atomic_write(folder / name, lambda file: file.write(text.encode()))


def counts_of(bad: dict[str, str]) -> str:
    """The number of pictures of each kind, in words."""
    return ", ".join(f"{count:,} {kind}" for kind, count in Counter(bad.values()).most_common())


def _words(kind: str) -> str:
    if kind.startswith("of unknown scale"):
        return "has values of 32 bits, whose scale is unknown"
    if kind == "a deep TIFF":
        return "a TIFF that uses fewer than its 16 bits a colour (save it as PNG, or give data.bit_depth 16)"
    unread = "no picture that can be read"
    known = {
        "no picture": unread,
        "not read": unread,
        "truncated": f"{unread} (truncated)",
        "empty": f"{unread} (empty)",
    }
    return known.get(kind, kind)


def sentence_of(name: str, error: BadPictureError) -> str:
    """A file that cannot be decoded, as an error."""
    return f"{name} is {_words(error.kind)}: replace or remove it, or give data.bad_pictures skip"
