"""The error for wrong input, which the user can correct."""

import difflib
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import NoReturn


class InputError(ValueError):
    """Wrong input. The message is one line: what was given, what was expected and what to do. The exit status is 2."""


def first_input_error(error: BaseException | None) -> InputError | None:
    """The first InputError in the chain of causes of ``error``, which includes itself; None if there is none."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def nearest_word(given: str, words: Iterable[str]) -> str | None:
    """The most similar of ``words``; None if none is similar. Case is ignored."""
    small = {word.lower(): word for word in words if len(word) > len(given) / 2}  # "one" lies within "convnet"
    close = difflib.get_close_matches(given.lower(), small, n=5, cutoff=0.6)
    swapped = [one for one in close if sorted(one) == sorted(given.lower())]  # letters in another order come first
    return small[[*swapped, *close][0]] if close else None


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint "; did you mean X?" with the most similar of ``words``, or "" if none is similar. Case is ignored."""
    close = nearest_word(word, words)
    return "" if close is None else f"; did you mean {close}?"


class LineParser(ArgumentParser):
    """An argument parser that raises InputError, for the commands that do not use the parser of Lightning."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError instead of printing the usage and exiting."""
        raise InputError(message)
