"""Whether arguments are of the kind that their type hints say: for calls in Python, which no parser checks.

The numbers themselves are checked by ``ranges``.
"""

import collections.abc
import inspect
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

LONGEST = 60
"""Characters of a value in an error."""


def misplaced(hint: Any, value: Any, where: str) -> tuple[str, str, str] | None:
    """The part of an argument that is of another kind than its type hint says.

    Args:
        hint: a type hint; None for an argument without one, which takes anything.
        value: the argument.
        where: its name.

    Returns:
        The name of the part, as ``augment[1]`` within a list; what it is; and what was expected. None if all fits.
    """
    if hint is None or _fits(hint, value):
        return None
    lists = [one for one in map(_bare, _alternatives(hint)) if _is_list(one)]
    if isinstance(value, list | tuple) and len(lists) == 1 and (hints := _of_items(lists[0], len(value))) is not None:
        pairs = enumerate(zip(hints, value, strict=True))
        found = (misplaced(one, item, f"{where}[{i}]") for i, (one, item) in pairs)
        return next(one for one in found if one is not None)
    if any(_fits(one, [value]) for one in lists):
        return where, shown(value), f"a list, as [{_as_code(value)}]"
    if isinstance(value, type):
        made = any(_is_below(value, one) for one in _classes(hint))
        return where, shown(value), f"an object, as {value.__name__}(...)" if made else in_words(hint)
    return where, shown(value), in_words(hint)


def _fits(hint: Any, value: Any) -> bool:
    hint = _bare(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in (None, type(None)):
        return value is None
    if is_union(hint):
        return not _is_unmade(inner, value) and any(_fits(one, value) for one in inner)
    if origin is typing.Literal:
        return any(type(one) is type(value) and one == value for one in inner)
    if origin is collections.abc.Callable:
        return callable(value)
    if origin is type:
        return isinstance(value, type) and (not inspect.isclass(inner[0]) or issubclass(value, inner[0]))
    if _is_list(hint):
        if not isinstance(value, list | tuple | nn.ModuleList):
            return False  # an array, a set or a range could not be written into config.yaml
        hints = _of_items(hint, len(value))
        return hints is not None and all(map(_fits, hints, value))
    if hint is bool:
        return isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))
    if hint in (int, float):
        return isinstance(value, int | float)
    kind = origin or hint
    if not inspect.isclass(kind) or kind in (Any, object):
        return True
    if issubclass(kind, str | os.PathLike):
        return isinstance(value, str | os.PathLike)
    if kind is collections.abc.Iterable and isinstance(value, str):
        return False  # a word is no list of words
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol or a typed dict, which cannot be asked
        return True


def _bare(hint: Any) -> Any:
    """A type hint without its annotations."""
    return _bare(typing.get_args(hint)[0]) if typing.get_origin(hint) is typing.Annotated else hint


def is_union(hint: Any) -> bool:
    """Whether a type hint is a union, written in either way."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _is_unmade(hints: Sequence[Any], value: Any) -> bool:
    """Whether a value is a class of which an object is expected. It can be called, so it would pass for a function."""
    if not isinstance(value, type) or any(typing.get_origin(one) is type for one in hints):
        return False
    return any(_is_below(value, one) for one in hints if one not in (Any, object, nn.Module))


def _is_below(value: type, kind: Any) -> bool:
    try:
        return inspect.isclass(kind) and issubclass(value, kind)
    except TypeError:  # a protocol
        return False


def _alternatives(hint: Any) -> Sequence[Any]:
    hint = _bare(hint)
    return typing.get_args(hint) if is_union(hint) else (hint,)


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) in (list, tuple, collections.abc.Sequence) or hint in (list, tuple)


def _of_items(hint: Any, count: int) -> Sequence[Any] | None:
    """The hints of the items of a list or tuple with ``count`` items; None if it has another number of items."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or Ellipsis in inner:
        return [inner[0] if inner else Any] * count
    return inner if len(inner) == count else None


def _classes(hint: Any) -> Sequence[Any]:
    """The classes in a type hint, at any depth of unions and lists."""
    inner = typing.get_args(hint)
    return [one for part in inner for one in _classes(part)] if inner else [hint]


def shown(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, str | int | float | bool | None):
        return text if len(text := repr(value)) <= LONGEST else f"{text[:LONGEST]}..."
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "item") and not getattr(value, "ndim", 0):
        return f"{repr(value)[:LONGEST]}, no number of Python (item() gives it)"
    package = type(value).__module__.partition(".")[0]
    of_package = f" of {package}" if package not in ("builtins", "distill_lightning", "__main__") else ""
    return f"{_a(type(value).__name__)}{of_package}"


def _as_code(value: Any) -> str:
    """How to write a value in Python."""
    if isinstance(value, str | int | float | bool | None):
        return shown(value)
    return value.__name__ if isinstance(value, type) else f"{type(value).__name__}(...)"


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"


def in_words(hint: Any) -> str:
    """What an argument may be: "a list (a Transform each) or None"."""
    alternatives = [*map(_bare, _alternatives(hint))]
    literals = [repr(word) for one in alternatives if typing.get_origin(one) is typing.Literal for word in one.__args__]
    words = [f"one of {', '.join(literals)}"] if literals else []
    words += dict.fromkeys(_words(one) for one in alternatives if typing.get_origin(one) is not typing.Literal)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in (int, float):
        return "a number"
    if origin is collections.abc.Callable:
        return "a function"
    if origin is type:
        return "a class"
    if _is_list(hint):
        count = f" of {len(inner)}" if origin is tuple and Ellipsis not in inner else ""
        return f"a list{count} ({in_words(inner[0])} each)" if inner and inner[0] is not Any else f"a list{count}"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "a dict"
    if hint in (None, type(None)):
        return "None"
    if hint is bool:
        return "True or False"
    if hint is nn.Module:
        return "a network"
    if inspect.isclass(hint) and issubclass(hint, str | os.PathLike):
        return "a text"
    return _a(getattr(hint, "__name__", str(hint)))
