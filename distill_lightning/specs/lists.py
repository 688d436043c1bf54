"""The lists of classes and functions that a file may name, and what the user adds to them."""

import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from distill_lightning.errors import InputError

_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())

MOVED: dict[str, str] = {}
"""Class paths in files of earlier versions, and where the classes are now."""

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
"""A class path. Letters of other alphabets look like these, and are others."""


@contextmanager
def trusting(names: Iterable[str]) -> Iterator[None]:
    """Within this block, files may ask for these classes and functions, by their dotted names, as well.

    Raises:
        InputError: a name is no dotted name.
    """
    names = list(names)
    for name in names:
        if not DOTTED.fullmatch(name):
            raise InputError(f"trust is {name!r}: give the dotted name of one class, as my_package.Net")
    token = _trusted.set(_trusted.get() | frozenset(names))
    try:
        yield
    finally:
        _trusted.reset(token)


def is_trusted(class_path: str) -> bool:
    """Whether the user has said so."""
    return class_path in _trusted.get()


def lookup(class_path: str, kind: type) -> Any:
    """The class or function of that dotted name, if a file may ask for it where a ``kind`` belongs; None otherwise.

    Nothing outside the lists, and what the user trusts, is imported.

    Raises:
        InputError: it is trusted, and cannot be imported.
    """
    class_path = MOVED.get(class_path, class_path)
    if is_trusted(class_path):
        return _import(class_path)
    return on_list(class_path, kind)


def on_list(class_path: str, kind: type) -> Any:
    """The same, whatever the user trusts."""
    if not DOTTED.fullmatch(class_path):
        return None
    module, _, name = class_path.rpartition(".")
    if name.startswith("_"):
        return None
    for room in ROOMS.get(kind, ()):
        if module in _modules(room):
            found = getattr(importlib.import_module(module), name, None)
            if inspect.isclass(found) and issubclass(found, kind) and found.__module__ == module:
                is_base = inspect.isabstract(found) or (found is kind and kind not in ITSELF)
                return None if is_base else found
    listed = LISTED.get(kind)
    found = listed(module, name) if listed else None
    # what is built later is what this very path names, so it must be there already
    return found if found is not None and getattr(sys.modules.get(module), name, None) is found else None


@functools.cache
def _modules(room: str) -> frozenset[str]:
    """The names of a package's modules, or of a module itself, found without importing them."""
    spec = importlib.util.find_spec(room)
    if spec is None:
        return frozenset()
    below = pkgutil.iter_modules(spec.submodule_search_locations or [])
    return frozenset({room} | {f"{room}.{module.name}" for module in below})


def _import(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{class_path} is trusted, but cannot be imported: run where it can, or set PYTHONPATH"
        ) from error


def _network(module: str, name: str) -> Any:
    """Constructors of torchvision and timm, by the names that these list."""
    if re.fullmatch(r"torchvision\.models(\.\w+)?", module):
        from torchvision import models

        found = getattr(models, name, None)
        return found if name in models.list_models(module=models) and inspect.isfunction(found) else None
    if (module, name) == ("timm", "create_model") and importlib.util.find_spec("timm"):
        return importlib.import_module("timm").create_model
    return None


def _of_torch(package: Any, kind: type) -> Callable[[str, str], Any]:
    """Classes of a package of torch's, but for the base class."""

    def listed(module: str, name: str) -> Any:
        found = getattr(package, name, None)
        inside = module == package.__name__ or module.startswith(f"{package.__name__}.")
        return found if inside and inspect.isclass(found) and issubclass(found, kind) and found is not kind else None

    return listed


def _of_package(room: str, names: Collection[str]) -> Callable[[str, str], Any]:
    def listed(module: str, name: str) -> Any:
        inside = module == room or module.startswith(f"{room}.")
        found = getattr(importlib.import_module(room), name, None) if inside and name in names else None
        return found if inspect.isclass(found) else None

    return listed


ROOMS: dict[type, tuple[str, ...]] = {nn.Module: ("distill_lightning.models",)}
"""Where this package keeps its classes of a kind. The rooms above add theirs (``offer``)."""
ITSELF: set[type] = set()
"""Those kinds that are no mere bases of what may be named."""
LISTED: dict[type, Callable[[str, str], Any]] = {
    nn.Module: _network,
    torch.optim.Optimizer: _of_torch(torch.optim, torch.optim.Optimizer),
    torch.optim.lr_scheduler.LRScheduler: _of_torch(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
}
"""What of other packages may be named, by module and name."""


def offer(kind: type, *rooms: str, itself: bool = False, package: str = "", names: Collection[str] = ()) -> None:
    """Files may ask for the classes of this kind that these modules and packages define.

    Args:
        kind: the base class.
        rooms: names of modules of this package.
        itself: whether the kind may be asked for too, and is no mere base.
        package: another package.
        names: of the classes that it exports, those that may be asked for.
    """
    ROOMS[kind] = rooms
    if itself:
        ITSELF.add(kind)
    if names:
        LISTED[kind] = _of_package(package, names)
