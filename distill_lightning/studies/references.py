"""References to other runs' files in a study's options: ``${teacher}``, ``${teacher/best: seed=0}``."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_lightning.errors import InputError

PATTERN = re.compile(r"\$\{\s*(\w+)(?:/(last|best|ticket))?\s*(?::\s*([^}]*))?\}")
FILES = {"last": "checkpoints/last.ckpt", "best": "checkpoints/best.ckpt", "ticket": "ticket.pt"}


@dataclass(frozen=True)
class Reference:
    """A reference to a file of the runs of an entry."""

    text: str
    """The text of the reference in the study."""
    entry: str
    file: str
    """The path of the file within the run's folder."""
    restrictions: tuple[tuple[str, str], ...]
    """The (variable, value) pairs that the runs must have. The values are YAML."""

    def path_in(self, folder: Path) -> str:
        """The file's path, for the run in ``folder``."""
        return str(folder / self.file)


def is_reference(text: str) -> bool:
    """Whether the whole text is a reference."""
    return PATTERN.fullmatch(text) is not None


def references_in(value: Any) -> Iterator[Reference]:
    """The references in nested dicts and lists, in the order of the text."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from references_in(one)
    elif isinstance(value, str) and (found := PATTERN.fullmatch(value)):
        entry, file, restriction = found.groups()
        parts = [part.partition("=") for part in (restriction or "").split(",") if part]
        restrictions = tuple((variable.strip(), given.strip()) for variable, _, given in parts)
        yield Reference(value, entry, FILES[file or "last"], restrictions)


def check_references(value: Any) -> None:
    """Refuses strings that contain ``${`` but are no reference.

    Raises:
        InputError: there is such a string. The message names the first one.
    """
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            check_references(one)
    elif isinstance(value, str) and "${" in value and not is_reference(value):
        raise InputError(
            f'"{value}" is no reference: write ${{run}}, ${{run/best}} or ${{run: variable=value}}, with no other text'
        )


def substitute(value: Any, texts: Mapping[str, str | list[str]]) -> Any:
    """Replaces each string in ``value`` that is a key of ``texts`` by the value of the key, at any depth.

    If a string within a list is replaced by a list, the elements are inserted into the outer list.
    """
    if isinstance(value, dict):
        return {key: substitute(one, texts) for key, one in value.items()}
    if isinstance(value, list):
        new: list[Any] = []
        for one in value:
            replaced = substitute(one, texts)
            if isinstance(replaced, list) and not isinstance(one, list):
                new += replaced
            else:
                new.append(replaced)
        return new
    return texts.get(value, value) if isinstance(value, str) else value
