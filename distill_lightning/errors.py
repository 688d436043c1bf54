"""The one kind of error that is the user's to mend."""

import difflib
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import NoReturn


class InputError(ValueError):
    """Wrong input: one line on what was given, what was expected and what to do. Ends a command with status 2."""


def first_input_error(error: BaseException | None) -> InputError | None:
    """The error of ours that another was raised because of, if any."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def nearest(word: str, words: Iterable[str]) -> str:
    """ "; did you mean X?", or nothing where nothing is near. Capital letters make no difference."""
    small = {word.lower(): word for word in words}
    close = difflib.get_close_matches(word.lower(), small, n=1, cutoff=0.6)
    return f"; did you mean {small[close[0]]}?" if close else ""


class LineParser(ArgumentParser):
    """Of the verbs that have a parser of their own: what is wrong is an InputError."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)
