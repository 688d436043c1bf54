"""What the classes of a configuration declare about their options.

A class may say, as attributes of the class:

    free_options            names of its options that cannot change the result of a run: where files lie, how many workers
    root_names_the_pictures whether its option ``root`` says which pictures these are (a data module)
    validation_decides      whether what a run keeps depends on when it validates (a callback)

A class that declares nothing has all its options count.
"""

import sys
from pathlib import Path
from typing import Any

from distill_lightning.runs import Declared


def named_class(class_path: str) -> Any:
    """What a class path names that has been parsed, and so imported."""
    module, _, name = class_path.rpartition(".")
    return getattr(sys.modules[module], name)


def declared(options: dict[str, Any]) -> Declared:
    """Of resolved options, whose classes are imported."""
    free: set[str] = set()
    validation_decides = False

    def walk(value: Any, path: str) -> None:
        nonlocal validation_decides
        if isinstance(value, dict) and "class_path" in value:
            found = named_class(value["class_path"])
            names = {name for base in getattr(found, "__mro__", ()) for name in vars(base).get("free_options", ())}
            free.update(f"{path}.init_args.{name}" for name in names)
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
    return str(Path(root).resolve())
