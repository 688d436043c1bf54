"""Describes Python objects as plain data, in the form of a configuration: by class path and arguments."""

import functools
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from distill_lightning.recorded import Recorded
from distill_lightning.specs.arguments import leaves, parameters


@dataclass
class Description:
    """Plain data that describe Python objects.

    Args:
        unnamed: for each object that plain data cannot describe, its place, as "model.init_args.network", and its
            class. In the description it is None.
    """

    unnamed: dict[str, str] = field(default_factory=dict)

    def of(self, value: Any, place: str) -> Any:
        """Describes a value.

        Plain values stay as they are. A class, a function, and ``functools.partial`` of these are described by class
        path and arguments, with the defaults of arguments that are not given. So are objects that remember their
        arguments (``Recorded``), and objects of other packages whose attributes say how to make an equal object.

        Args:
            value: any object.
            place: the full name of the option.
        """
        if isinstance(value, float):
            # not as a subclass, such as NumPy's; and an object of Lightning may hold -0.0 where 0.0 was given
            return float(value) + 0.0
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, Path | timedelta | Enum):
            return value.value if isinstance(value, Enum) else str(value)
        if isinstance(value, Mapping):
            return {key: self.of(inner, f"{place}.{key}") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(inner, f"{place}.{number}") for number, inner in enumerate(value)]
        if isinstance(value, Recorded):
            return self.spec(type(value), value.given_arguments, place)
        if isinstance(value, functools.partial) and not value.args:
            return self.spec(value.func, value.keywords, place)
        if inspect.isclass(value) or inspect.isfunction(value):
            return self.spec(value, {}, place)
        given = arguments_of(value)
        if given is None:
            self.leave_out(type(value), place)
            return None
        return self.spec(type(value), given, place)

    def spec(self, made_by: Any, given: Mapping[str, Any], place: str) -> dict[str, Any] | None:
        """The specification of what a class or function makes from arguments; None if it cannot be imported by name."""
        path = class_path(made_by)
        if path is None:
            self.leave_out(made_by, place)
            return None
        arguments = {**defaults(made_by), **given}
        order = [name for name in parameters(made_by) if name in arguments]
        arguments = {name: arguments[name] for name in [*order, *(given.keys() - {*order})]}
        hints = parameters(made_by)
        return {
            "class_path": path,
            "init_args": {
                name: self.of(_as_parsed(inner, hints.get(name)), f"{place}.init_args.{name}")
                for name, inner in arguments.items()
            },
        }

    def leave_out(self, kind: Any, place: str) -> None:
        """Notes an object that cannot be described."""
        self.unnamed[place] = f"{kind.__module__}.{kind.__qualname__}"


def _as_parsed(value: Any, hint: Any) -> Any:
    """A number as the parser of the command reads it: a float where the type hint allows no integer."""
    if isinstance(value, list | tuple):
        return [_as_parsed(inner, hint) for inner in value]
    if type(value) is int:
        _, plain = leaves(hint)
        return float(value) if float in plain and int not in plain else value
    return value


def class_path(made_by: Any) -> str | None:
    """The dotted name of a class or function, as the command writes it; None if it cannot be imported by that name.

    For a class of this program it is the file that defines it, otherwise the outermost package that exports it.
    """
    module, name = str(getattr(made_by, "__module__", None)), str(getattr(made_by, "__qualname__", None))
    if module == "__main__" or getattr(sys.modules.get(module), name, None) is not made_by:
        return None
    parts = module.split(".")
    outer = [".".join(parts[: number + 1]) for number in range(len(parts))]
    where = module if parts[0] == "distill_lightning" else next(o for o in outer if _exports(o, name, made_by))
    return f"{where}.{name}"


def _exports(module: str, name: str, made_by: Any) -> bool:
    return getattr(sys.modules[module], name, None) is made_by


def defaults(made_by: Any) -> dict[str, Any]:
    """The default of each argument of a class or function that has one, also of those for its base classes.

    The order is that of ``parameters``.
    """
    inits = [vars(base)["__init__"] for base in getattr(made_by, "__mro__", ()) if "__init__" in vars(base)]
    found: dict[str, Any] = {}
    for function in inits or [made_by]:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not parameter.empty:
                found.setdefault(name, parameter.default)
    return {name: found[name] for name in parameters(made_by) if name in found}


def arguments_of(value: Any) -> dict[str, Any] | None:
    """The arguments that make an object equal to a given one, read from its attributes of the same names.

    The result is checked: an object that is made from it has the same attributes. None if there are no such arguments,
    or if the class is not one of Lightning's callbacks: making an object of another class could have any effect.
    """
    kind = type(value)
    if not kind.__module__.startswith("lightning.pytorch.callbacks."):
        return None
    try:
        given = {name: _attribute(value, name) for name in parameters(kind) if name is not None}
        same = _plain(vars(kind(**given))) == _plain(vars(value))
    except Exception:  # the class may need anything, and may refuse what it keeps
        return None
    return given if same else None


def _attribute(value: Any, name: str) -> Any:
    return getattr(value, name) if hasattr(value, name) else getattr(value, f"_{name}")


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes in a form that can be compared."""
    return {name: value if _comparable(value) else type(value) for name, value in attributes.items()}


def _comparable(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_comparable, value))
    return value is None or isinstance(value, bool | int | float | str | timedelta)
