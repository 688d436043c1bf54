"""Finds the classes of a folder by importing every file in it: a new file needs no entry anywhere."""

import importlib
import pkgutil


def import_all(package: str) -> None:
    """Imports every module directly in ``package``, so that its classes can be named by their short names."""
    path = importlib.import_module(package).__path__
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
