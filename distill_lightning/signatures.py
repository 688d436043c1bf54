"""The arguments of a class or function, those that it passes on to its base classes included."""

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

REQUIRED = inspect.Parameter.empty
"""The default of an argument that has none."""


@dataclass(frozen=True)
class Argument:
    """An argument of a class or function.

    Args:
        hint: its type hint, with ``Annotated``; None if there is none.
        default: its default; REQUIRED without one.
        owner: the class or function that declares it.
    """

    hint: Any
    default: Any
    owner: Any


@dataclass(frozen=True)
class Signature:
    """The arguments of a class or function.

    Args:
        arguments: by name; those of a class come before those of its base classes.
        positional: the names of its own arguments that can be given by position, in order.
        passes_on: whether it passes further keywords on to code that is not known here.
    """

    arguments: Mapping[str, Argument] = field(default_factory=dict)
    positional: tuple[str, ...] = ()
    passes_on: bool = False


@cache
def signature(made_by: Callable[..., Any]) -> Signature:
    """The arguments of a class or function. A class that takes ``**kwargs`` has the arguments of its base class too."""
    if not inspect.isclass(made_by):
        return _of_function(made_by, made_by)
    arguments: dict[str, Argument] = {}
    positional: tuple[str, ...] | None = None
    passes_on = False
    for base in made_by.__mro__:
        if "__init__" in vars(base) and base is not object:
            own = _of_function(vars(base)["__init__"], base)
            arguments = {**arguments, **{k: v for k, v in own.arguments.items() if k not in arguments}}
            positional = own.positional if positional is None else positional
            if not (passes_on := own.passes_on):
                break
    return Signature(arguments, positional or (), passes_on)


def _of_function(function: Callable[..., Any], owner: Any) -> Signature:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):  # the hints use names that only a type checker sees
        hints = {}
    found = [p for name, p in inspect.signature(function).parameters.items() if name != "self"]
    named = [p for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return Signature(
        {p.name: Argument(hints.get(p.name), p.default, owner) for p in named},
        tuple(p.name for p in named if p.kind is not p.KEYWORD_ONLY),
        any(p.kind is p.VAR_KEYWORD for p in found),
    )
