"""One-line errors for wrong options: what was given, what was expected, the nearest right word."""

import difflib
import re
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from distill_lightning.errors import InputError


class Parser(LightningArgumentParser):
    """A parser whose errors are one line, and end the command with status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(message) from ex
