"""Imports every file of a folder, so that the classes in a new file are found without being registered anywhere."""

import importlib
import pkgutil


def import_all(package: str) -> None:
    """Imports every module directly in ``package``. The command line then finds its classes by their short names."""
    path = importlib.import_module(package).__path__
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
