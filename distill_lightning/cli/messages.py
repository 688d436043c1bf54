"""The parser of the command, whose errors are one line: the place, what is wrong there, and what is right."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import jsonargparse
import lightning
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser

from distill_lightning.cli import options
from distill_lightning.errors import InputError, first_input_error, nearest
from distill_lightning.ranges import refuse_faults
from distill_lightning.runs import SHAPE
from distill_lightning.runs.declared import named_class

LONGEST = 160
"""Characters of a reason that a library gives."""


class RefusedError(InputError):
    """The parser refuses the options. The message is the innermost reason that it gives."""


class Parser(LightningArgumentParser):
    """A parser that raises an error with one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the error.

        Raises:
            InputError: always. A nested parser raises jsonargparse's own error instead.
        """
        if not self.exit_on_error:  # a nested parser: its message becomes a part of the outer parser's message
            super().error(message, ex)
        if ours := first_input_error(ex):
            raise InputError(str(ours)) from ex
        raise RefusedError(reason(message if ex is None else ex)) from ex

    def instantiate_classes(self, cfg: Namespace, **kwargs: Any) -> Namespace:
        """Builds the objects that options describe.

        Raises:
            InputError: a class refuses its arguments, also where it is one of several types that an option may have.
        """
        try:
            built: Namespace = super().instantiate_classes(cfg, **kwargs)
        except InputError:
            raise
        except ValueError as error:
            if ours := first_input_error(error) or _of_another_type(error):
                raise InputError(str(ours)) from error
            raise
        return built


def reason(error: BaseException | str) -> str:
    """The innermost reason of an error, in one line.

    The errors of jsonargparse form a chain. The outer ones list every type that was tried; the last one is the cause.
    """
    inner: BaseException | str = error
    while isinstance(inner, BaseException) and (cause := inner.__cause__ or inner.__context__):
        inner = cause
    line = " ".join(str(inner).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def _of_another_type(error: BaseException | None) -> InputError | None:
    """The InputError of one type of a union; None if there is none."""
    while error is not None:
        for refusal in _collected(error):
            if ours := first_input_error(refusal) or _of_another_type(refusal):
                return ours
        error = error.__cause__ or error.__context__
    return None


def _collected(error: BaseException) -> list[BaseException]:
    """The refusals of all types of a union.

    jsonargparse tries the types one after the other, and its error has the first refusal alone as its cause. All of
    them are in a local variable of the function that raises.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = [one for frame in frames for one in frame.f_locals.get("exceptions") or ()]
    return [one for one in found if isinstance(one, BaseException)]


def refuse_out_of_range(config: Namespace, verb: str) -> None:
    """Checks the values of all options of a verb, before anything is built: so the error has the option's full name.

    Raises:
        InputError: a number is out of its range, or a word is none that the trainer knows.
    """
    known = options.plain_options(verb)
    plain = [(name, (known[name].hint, config.get(name))) for name in known if name in config]
    for name, argument in [*plain, *_arguments(config)]:
        refuse_faults(argument[0], argument[1], name)
        if name in options.CHOICES and isinstance(argument[1], str):
            choices = options.CHOICES[name]()
            if argument[1] not in choices:
                near = nearest(argument[1], choices) or f": expected one of {', '.join(choices)}"
                raise InputError(f"{name} is {argument[1]}{near}")


def _arguments(value: Any, path: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The options in resolved options, by full name, with their hints and values."""
    if isinstance(value, list):
        for inner in value:
            yield from _arguments(inner, path)
    if not isinstance(value, Namespace):
        return
    made_by = options.GROUPS.get(path)
    inside = value
    if isinstance(value.get("class_path"), str):
        made_by, inside = named_class(value["class_path"]), value.get("init_args") or Namespace()
    known = options.of_class(made_by) if made_by is not None else {}
    for name, inner in vars(inside).items():
        full = f"{path}.{name}" if path else name
        if name in known and name not in SHAPE:  # the data decide the shape, and it may be 0 until then
            yield full, (known[name].hint, inner)
        yield from _arguments(inner, full)


@contextmanager
def refusals_of_libraries() -> Iterator[None]:
    """Turns errors of Lightning about its own options, and missing packages, into wrong input.

    Raises:
        InputError: within this block, a package is missing, or code of Lightning refused an argument.
    """
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        package = f": pip install {error.name}" if error.name else ""
        raise InputError(f"{reason(error)}{package}") from error
    except (MisconfigurationException, ValueError, TypeError) as error:
        if first_input_error(error):
            raise
        if _is_of(lightning, error):
            raise InputError(f"trainer: {reason(error)}") from error
        # the parser tries each type that an option may have, and lists what was wrong with each: first the class
        if _is_of(jsonargparse, error) and (first := re.search(r"^ *- (.+)", str(error), re.MULTILINE)):
            raise InputError(f"{_being_made(error) or 'a class'} refuses an option: {reason(first[1])}") from error
        raise


def _being_made(error: BaseException) -> str | None:
    """The name of the class whose constructor raised the first of the errors that the parser has collected."""
    for refusal in _collected(error)[:1]:
        for frame, _ in traceback.walk_tb(refusal.__traceback__):
            if frame.f_code.co_name == "__init__" and "self" in frame.f_locals:
                return type(frame.f_locals["self"]).__name__
    return None


def _is_of(package: ModuleType, error: Exception) -> bool:
    """Whether code of a package raised an error."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).is_relative_to(Path(str(package.__file__)).parent)
