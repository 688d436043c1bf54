"""``distill configs``: lists, prints and copies the configurations that come with the program. It needs no torch."""

import itertools
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from distill_lightning import config_files
from distill_lightning.cli.verbs import OTHER_VERBS
from distill_lightning.errors import InputError, LineParser, nearest
from distill_lightning.files import atomic_write, read_yaml


def main(args: list[str]) -> int:
    """The command. Returns its exit status.

    Raises:
        InputError: there is no such file or folder, or a copy would replace a file that differs.
        OSError: a file cannot be written.
    """
    parser = LineParser(
        prog="distill configs",
        description=OTHER_VERBS["configs"],
        epilog="The names work wherever a file is expected: distill fit --config digits/dlb, distill study quick.",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", help="a file, as digits/dlb, is printed; a folder, as digits, is listed")
    parser.add_argument("--copy", type=Path, metavar="FOLDER", help="copy to this folder, with the files that it names")
    given = parser.parse_args(args)
    names = matching(given.name)
    if given.copy is not None:
        copied = copy(names, given.copy)
        print("\n".join(str(file) for file in copied))
    elif given.name is None or len(names) > 1:
        print(listing(names))
    else:
        print((config_files.FOLDER / f"{names[0]}.yaml").read_text(encoding="utf-8"), end="")
    return 0


def matching(name: str | None) -> list[str]:
    """The shipped files of a name, which may be that of a folder; all without a name.

    Raises:
        InputError: there is none.
    """
    names = config_files.shipped_names()
    if name is None:
        return names
    if (file := config_files.find_shipped(name)) is not None:
        return [_name_of(file)]
    folder = Path(name).as_posix().removeprefix("configs/")
    within = [one for one in names if one.startswith(f"{folder}/")]
    if not within:
        near = nearest(folder.removesuffix(".yaml"), [*names, *{one.partition("/")[0] for one in names}])
        raise InputError(f"no configuration {name} comes with the program{near or ': distill configs lists them'}")
    return within


def listing(names: list[str]) -> str:
    """A line for each file, with the first line of its comment; an empty line between folders."""
    width = max(map(len, names))
    folders = itertools.groupby(names, key=lambda name: name.rpartition("/")[0])
    blocks = [[f"{name:<{width}}  {first_comment(name)}".rstrip() for name in group] for _, group in folders]
    return "\n\n".join("\n".join(block) for block in blocks)


def first_comment(name: str) -> str:
    """The first line of a shipped file's comment; empty where it has none."""
    text = (config_files.FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    return next((line.lstrip("# ") for line in text.splitlines() if line.startswith("#")), "")


def copy(names: list[str], folder: Path) -> list[Path]:
    """Copies shipped files, and the files that they name, under the same relative paths.

    Args:
        names: as ``digits/dlb``.
        folder: to copy to; it is made if missing.

    Returns:
        The copies.

    Raises:
        InputError: a file with other content is there already; nothing has been copied then.
    """
    files = needed(config_files.FOLDER / f"{name}.yaml" for name in names)
    contents = {folder / file.relative_to(config_files.FOLDER): file.read_bytes() for file in files}
    for target, content in contents.items():
        if target.exists() and not (target.is_file() and target.read_bytes() == content):
            raise InputError(f"{target} is there already, and differs: give another folder, or remove it")
    for target, content in contents.items():
        atomic_write(target, partial(_write, content))
    return list(contents)


def needed(files: Iterable[Path]) -> list[Path]:
    """Shipped files, and the shipped files that they name, each once."""
    found: dict[Path, None] = {}
    left = list(files)
    while left:
        file = left.pop(0)
        if file not in found:
            found[file] = None
            left += named_in(file)
    return list(found)


def named_in(file: Path) -> list[Path]:
    """The files that a shipped file names: what it builds on, and the configurations of a study or a search."""
    content = read_yaml(file)
    names = [content["base"]] if "base" in content else []
    for entry in [content, *content.get("runs", {}).values()]:
        configs = entry.get("config", [])  # an entry that names a function has none
        names += configs if isinstance(configs, list) else [configs]
    return [config_files.beside(file, name).resolve() for name in names]


def _name_of(file: Path) -> str:
    return file.relative_to(config_files.FOLDER).with_suffix("").as_posix()


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)
