"""The runs and files that a run was made from: teachers, members, tickets and starting weights.

They are found in the options of the run, as paths, so a run folder that was moved without its teachers still says what
they were. Nothing that an option names is opened, except the configurations of runs.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill_lightning.catalogue.info import RunInfo, read
from distill_lightning.errors import InputError
from distill_lightning.files import read_json
from distill_lightning.runs import RunConfig, identity
from distill_lightning.runs.config import CONFIG, IDENTITY

ROLES = {
    "teacher": "teacher",
    "members": "member",
    "ticket": "ticket",
    "start_from": "starting weights",
    "generalist": "generalist",
    "specialists": "specialist",
}
"""Options that name what a run was made from, and the word for it."""
ENDS_OF_WEIGHTS = (".ckpt", ".pt", ".pth", ".safetensors")
"""Any option with such a value names a file of weights, too."""
MOST_GENERATIONS = 50
"""The largest number of generations that are followed."""
MOST_ORIGINS = 1000
"""The largest number of files of one run that are looked for."""

State = Literal["", "missing", "changed", "perhaps changed"]


@dataclass(frozen=True)
class Origin:
    """A file or a run that a run was made from.

    Args:
        role: a word of ROLES, as "teacher" or "member"; for other options, the option's name.
        given: the path as the option has it.
        path: where it is now; None if it is missing.
        info: the run that it belongs to, if it belongs to one.
        state: "missing"; "changed" if the file or its run is not what it was when the later run started; "perhaps
            changed" if this is so for one of several runs, and it is not known for which.
        origins: what that run was made from.
    """

    role: str
    given: str
    path: Path | None
    info: RunInfo | None
    state: State
    origins: tuple["Origin", ...]


def origins(info: RunInfo) -> tuple[Origin, ...]:
    """What a run was made from, over all generations.

    A run that several others were made from is followed once, at its first place.
    """
    return _origins(info, {info.folder.resolve()}, MOST_GENERATIONS)


def _origins(info: RunInfo, followed: set[Path], generations: int) -> tuple[Origin, ...]:
    """As ``origins``. Runs in ``followed`` are not followed again, and those that are followed are added to it."""
    given = _named(info)
    places = [_place(info.folder, path) for _, path in given]
    folders = {place: _run_of(place) for place in places if place is not None}
    replaced: State = ""
    if folders and None not in places and _has_other_identity(info.folder):
        replaced = "changed" if len(set(folders.values()) - {None}) == 1 else "perhaps changed"
    found = []
    for (role, path), place in zip(given, places, strict=True):
        if place is None:
            found.append(Origin(role, path, None, None, "missing", ()))
            continue
        folder = folders[place]
        parent = None if folder is None else read(folder)
        more: tuple[Origin, ...] = ()
        if parent is not None and generations > 0 and (resolved := parent.folder.resolve()) not in followed:
            followed.add(resolved)
            more = _origins(parent, followed, generations - 1)
        state: State = "" if parent is None else replaced
        if _is_newer(place, info.folder):
            state = "changed"
        found.append(Origin(role, path, place, parent, state, more))
    return tuple(found)


def _named(info: RunInfo) -> list[tuple[str, str]]:
    """The role and the path of everything that the options of a run name."""
    found: dict[tuple[str, str], None] = {}
    for key, value in info.options.items():
        words = [word for word in key.split(".") if not word.isdigit()]
        role = next((ROLES[word] for word in reversed(words) if word in ROLES), None)
        if words[-2:] == ["start_from", "run"]:  # the name that the first run had, beside its path
            continue
        named = words[-1] in ROLES or words[-2:] == ["start_from", "path"]
        is_path = isinstance(value, str) and (named or value.endswith(ENDS_OF_WEIGHTS))
        if is_path:
            found[role or words[-1], str(value)] = None
    return list(found)[:MOST_ORIGINS]


def _place(folder: Path, given: str) -> Path | None:
    """Where a path of an option leads: a relative one starts at the working folder, or at a folder above the run."""
    for above in (Path(), *folder.absolute().parents):
        # os.path.exists is False for a path that no file can have; Path.exists raises an error
        if os.path.exists(place := above / given):
            return place
    return None


def _run_of(path: Path) -> Path | None:
    """The folder of the run that a file belongs to, or that the path is; None if there is no run."""
    for folder in (path, path.parent, path.parent.parent):
        if os.path.isfile(folder / CONFIG):
            return folder
    return None


def _is_newer(path: Path, folder: Path) -> bool:
    """Whether a file was written after the run in ``folder`` had started."""
    return path.is_file() and path.stat().st_mtime > (folder / CONFIG).stat().st_mtime


def _has_other_identity(folder: Path) -> bool:
    """Whether the digest of a run's options is no longer that of its start.

    It counts the runs that the options name by their own digests, so it changes if one of them was replaced.
    """
    if not (folder / IDENTITY).is_file():
        return False

    def known(of: Path) -> str | None:
        place = _place(folder, str(of))
        return None if place is None else identity(place)

    try:
        return bool(read_json(folder / IDENTITY).get("id") != RunConfig.read(folder).id(known))
    except (InputError, OSError):
        return False
