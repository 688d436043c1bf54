"""The ranges of numbers: declared in type hints, checked when an object is made, as are the kinds of other arguments.

    class KD(Method):
        def __init__(self, network: nn.Module, temperature: Positive = 4.0, ...) -> None:

The check is in ``__new__`` of `Ranged`, a base class of everything that has options, so that it is the same from a
YAML, from the command line and from Python.
"""

import math
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from torch import nn

from distill_lightning.errors import InputError, nearest
from distill_lightning.kinds import is_union, misplaced, shown
from distill_lightning.signatures import signature


@dataclass(frozen=True)
class Range:
    """The numbers that an argument may have. None of them is infinite or not a number.

    Args:
        at_least: the lowest number, which is allowed.
        at_most: the highest number, which is allowed.
        above: the lower limit, which is not allowed itself.
        below: the upper limit, which is not allowed itself.
    """

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        return math.isfinite(number) and not (
            (self.at_least is not None and number < self.at_least)
            or (self.at_most is not None and number > self.at_most)
            or (self.above is not None and number <= self.above)
            or (self.below is not None and number >= self.below)
        )

    def __str__(self) -> str:
        low = f"above {self.above:.12g}" if self.above is not None else ""
        high = f"below {self.below:.12g}" if self.below is not None else ""
        if self.at_least is not None:
            if not high and self.at_most is None:
                return f"{self.at_least:.12g} or more"
            low = f"from {self.at_least:.12g}"
        if self.at_most is not None:
            high = f"{'to' if self.at_least is not None else 'at most'} {self.at_most:.12g}"
        if low.startswith("from") and high.startswith("below"):
            high = f"to {high}"
        both = " and " if low.startswith("above") and high else " "
        return f"{low}{both}{high}".strip() or "a finite number"


Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(at_least=0)]
Fraction = Annotated[float, Range(0, 1)]
BelowOne = Annotated[float, Range(at_least=0, below=1)]
"""From 0 to below 1: a probability of dropout, a rate of pruning."""
OpenFraction = Annotated[float, Range(above=0, below=1)]
Finite = Annotated[float, Range()]
Count = Annotated[int, Range(at_least=1)]
CountOrZero = Annotated[int, Range(at_least=0)]
"""0 or more."""
Seed = Annotated[int, Range(-(10**12), 10**12)]
"""The seed of some draws: a whole number that a file may give, too."""
RunSeed = Annotated[int, Range(0, 2**32 - 1)]
"""The seed of a run, in the range that NumPy's generator takes."""


MakesNetwork = nn.Module | Callable[..., nn.Module] | str
"""A network, or what makes one, for the type check at run time."""


class Ranged:
    """A base class whose constructor refuses arguments that do not fit their type hints: numbers out of range, and
    other kinds of objects.

    Raises:
        InputError: an argument does not fit.
    """

    take_makers: ClassVar[tuple[str, ...]] = ()
    """The arguments for networks that also take what makes one: see ``networks.Network``."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Checks the arguments; they are not changed."""
        refuse_misfits(cls, args, kwargs)
        return super().__new__(cls)


def refuse_misfits(made: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Checks the arguments of a class or function.

    Raises:
        InputError: an argument does not fit its type hint. The message has its name, its value and what was expected.
    """
    known = signature(made)
    for name, value in [*zip(known.positional, args, strict=False), *kwargs.items()]:
        if name not in known.arguments:
            if known.passes_on:
                continue
            raise InputError(f"{made.__name__} has no option {name}{nearest(name, known.arguments)}")
        hint, default = known.arguments[name].hint, known.arguments[name].default
        if value is default:  # a user's class may have one that does not fit its hint, as in x: int = None
            continue
        place = f"{made.__name__}.{name}"
        refuse_faults(hint, value, place)
        if name in getattr(made, "take_makers", ()):
            hint = list[MakesNetwork] if typing.get_origin(hint) is list else MakesNetwork
        if fault := misplaced(hint, value, place):
            where, wrong, expected = fault
            raise InputError(f"{where} is {wrong}: it must be {expected}")


def refuse_faults(hint: Any, value: Any, where: str) -> None:
    """Refuses a value with a number out of range. The arguments are those of ``faults``.

    Raises:
        InputError: there is such a number. The message names the first one.
    """
    for place, wrong, expected in faults(hint, value, where):
        raise InputError(f"{place} is {wrong}: it must be {expected}")


def faults(hint: Any, value: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    """The numbers in a value that are out of range, at any depth.

    Args:
        hint: a type hint; ranges are in ``Annotated``.
        value: an argument of this type.
        where: its name.

    Yields:
        The name, as ``also[0.weight]`` within a container; the number; and what was expected.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        limits = next((extra for extra in inner[1:] if isinstance(extra, Range)), None)
        if limits is None:
            yield from faults(inner[0], value, where)
        elif (number := _number(value)) is None:
            yield where, shown(value), f"a number, {limits}"
        elif not math.isfinite(number):
            yield where, value, str(limits) if limits == Range() else f"finite, {limits}"
        elif number not in limits:
            yield where, value, str(limits)
        elif inner[0] is int and not isinstance(value, int):
            yield where, value, f"a whole number, {limits}"
    elif is_union(hint):
        if (fitting := _fitting(inner, value)) is not None:
            choices = [one for one in inner if limits_of(one) and typing.get_origin(one) is Annotated]
            for place, wrong, expected in faults(fitting, value, where):
                several = place == where and len(choices) > 1
                yield place, wrong, ", or ".join(map(_kind_and_limits, choices)) if several else expected
        elif all(typing.get_origin(one) is Annotated for one in inner if one is not type(None)):
            yield where, shown(value), f"a number, {' or '.join(map(str, limits_of(hint)))}"
    elif isinstance(value, Mapping) and len(inner) == 2:
        for key, one in value.items():
            yield from faults(inner[1], one, f"{where}[{key}]")
    elif isinstance(value, list | tuple) and inner and origin is not dict:
        # tuple[X, Y] has a hint for each item; list[X] and tuple[X, ...] have one for all
        hints = inner if len(inner) == len(value) and Ellipsis not in inner else [inner[0]] * len(value)
        for number, (one_hint, one) in enumerate(zip(hints, value, strict=True)):
            yield from faults(one_hint, one, f"{where}[{number}]")


def limits_of(hint: Any) -> list[Range]:
    """The ranges in a type hint, at any depth."""
    found = [extra for extra in typing.get_args(hint)[1:] if isinstance(extra, Range)]
    return found or [limits for inner in typing.get_args(hint) for limits in limits_of(inner)]


def _kind_and_limits(hint: Any) -> str:
    kind, words = typing.get_args(hint)[0], str(limits_of(hint)[0])
    return f"{'an int' if kind is int else 'a float'} {'of ' if words[0].isdigit() else ''}{words}"


def _number(value: Any) -> float | None:
    """A number of Python as a float; None for anything else. Those of NumPy and torch could not be written to files."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _fitting(hints: tuple[Any, ...], value: Any) -> Any:
    """The type of a union that a value has; None if it has none with a range."""

    def plain(hint: Any) -> Any:
        return plain(typing.get_args(hint)[0]) if typing.get_origin(hint) is Annotated else hint

    kinds = {hint: typing.get_origin(plain(hint)) or plain(hint) for hint in hints}
    exact = [hint for hint, kind in kinds.items() if type(value) is kind]
    # an int is a float as well, if the union has no int
    loose = [hint for hint, kind in kinds.items() if isinstance(kind, type) and isinstance(value, kind)]
    numbers = [hint for hint, kind in kinds.items() if kind in (int, float) and _number(value) is not None]
    return next(iter([*exact, *loose, *numbers]), None)
