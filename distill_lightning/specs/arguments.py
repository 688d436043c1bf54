"""Reads the type hints of the arguments of a class or function, and decides which values they allow."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Iterable
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from distill_lightning.signatures import signature
from distill_lightning.specs.lists import LISTED, ROOMS

PLAIN = (str, int, float, bool, bytes, complex, type(None), Path, PathLike, timedelta)
"""Types of plain arguments, which contain no other object."""
TEXTS = (str, bytes, Path, PathLike, timedelta)
"""Those of the plain types for which a file may give a string."""
NUMBERS = int | float | None
"""The type hint of an argument that a class passes on without declaring it."""


def parameters(found: Any) -> dict[str | None, Any]:
    """The type hint of each argument of a class or function, by name. Arguments for its base classes are included.

    If the class or function passes further keywords on to unknown code, the key None has the hint of these: numbers
        only.
    """
    known = signature(found)
    hints: dict[str | None, Any] = {name: argument.hint for name, argument in known.arguments.items()}
    return {**hints, None: NUMBERS} if known.passes_on else hints


def leaves(hint: Any) -> tuple[list[type], list[type]]:
    """The classes in a type hint, and the plain types in it. For a callable, they are those of its return value."""
    if hint is None:
        return [], [type(None)]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return [], list({type(value) for value in arguments})
    if origin is typing.Annotated:
        return leaves(arguments[0])
    if origin is collections.abc.Callable:
        return _joined([arguments[1]]) if len(arguments) == 2 else ([object], [])
    if origin is not None or isinstance(hint, types.UnionType):
        return _joined(a for a in arguments if a is not Ellipsis)
    if inspect.isclass(hint):
        if hint in (list, dict, tuple, set):
            return [], [int]
        return ([], [hint]) if issubclass(hint, PLAIN) else ([_kind_of(hint)], [])
    return [object], []  # for a type variable or Any, a file may neither build an object nor give a string


def holds_many(hint: Any) -> bool:
    """Whether a type hint allows a list or a dict of values."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return any(holds_many(argument) for argument in arguments)
    if inspect.isclass(origin or hint):
        return issubclass(origin or hint, collections.abc.Iterable)
    return origin is None  # the hint does not say


def _kind_of(hint: type) -> type:
    """The kind of a class, which is a base class that has a list: Optimizer for SGD, for example."""
    return next((kind for kind in {**ROOMS, **LISTED} if kind is not nn.Module and issubclass(hint, kind)), hint)


def _joined(hints: Iterable[Any]) -> tuple[list[type], list[type]]:
    kinds: list[type] = []
    plain: list[type] = []
    for hint in hints:
        some_kinds, some_plain = leaves(hint)
        kinds += [kind for kind in some_kinds if kind not in kinds]
        plain += [kind for kind in some_plain if kind not in plain]
    return kinds, plain
