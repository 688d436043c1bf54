"""What a callback needs of the module that is trained."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method


def method_of(pl_module: pl.LightningModule, callback: Callback) -> Method:
    """The module as a method of this program.

    Args:
        pl_module: the module.
        callback: who asks, for the error.

    Raises:
        InputError: it is another module.
    """
    if not isinstance(pl_module, Method):
        name, other = type(callback).__name__, type(pl_module).__name__
        raise InputError(f"{name} works with the methods of this program, not with {other}")
    return pl_module
