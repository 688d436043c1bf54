"""The one kind of error that is the user's to mend."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Wrong input: one line on what was given, what was expected and what to do. Ends a command with status 2."""


def nearest(word: str, words: Iterable[str]) -> str:
    """ "; did you mean X?", or nothing where nothing is near."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
