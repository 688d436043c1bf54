"""Collects what the classes of a configuration declare about their options.

A class may have these class attributes:

    free_options             names of its options that cannot change the result of a run, such as folders and the number
                             of workers
    later_options            options that were added after version 0.2, with the value that means the same as no such
                             option: with this value they do not count, so that runs from before can go on
    root_names_the_pictures  of a data module: whether its option ``root`` decides which pictures are used
    validation_decides       of a callback: whether the weights that a run keeps depend on the times of validation

If a class declares no ``free_options``, all its options are taken to change the result. Lightning's callbacks declare
nothing: those of ``WATCHERS`` do not count, the others do.
"""

import sys
from pathlib import Path
from typing import Any

from distill_lightning.files import is_url
from distill_lightning.runs import Declared


def named_class(class_path: str) -> Any:
    """The class or function with this class path. The parser has already imported it."""
    module, _, name = class_path.rpartition(".")
    return getattr(sys.modules[module], name)


def declared(options: dict[str, Any]) -> Declared:
    """Collects the declarations of all classes in resolved options. The classes must be imported already."""
    free: set[str] = set()
    validation_decides = False

    def walk(value: Any, path: str) -> None:
        nonlocal validation_decides
        if isinstance(value, dict) and "class_path" in value:
            found = named_class(value["class_path"])
            names = {name for base in getattr(found, "__mro__", ()) for name in vars(base).get("free_options", ())}
            free.update(f"{path}.init_args.{name}" for name in names)
            given = value.get("init_args") or {}
            for base in getattr(found, "__mro__", ()):
                later = vars(base).get("later_options", {}).items()
                free.update(f"{path}.init_args.{name}" for name, usual in later if given.get(name, usual) == usual)
            validation_decides |= bool(getattr(found, "validation_decides", False))
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            walk(inner, f"{path}.{key}" if path else str(key))

    walk(options, "")
    return Declared(frozenset(free), _pictures(options), validation_decides)


def _pictures(options: dict[str, Any]) -> str | None:
    data = options.get("data") or {}
    root = (data.get("init_args") or {}).get("root")
    if not root or not getattr(named_class(data["class_path"]), "root_names_the_pictures", True):
        return None
    return root if is_url(root) else str(Path(root).resolve())
