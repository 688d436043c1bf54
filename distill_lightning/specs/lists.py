"""The lists of classes and functions that a file may use, and those that the user trusts."""

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
from distill_lightning.models.activations import OF_TORCH

_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())

MOVED: dict[str, str] = {}
"""New class paths of classes that earlier versions had elsewhere, by the old class path."""

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
"""A class path. Only ASCII is allowed, because letters of other alphabets can look the same."""


@contextmanager
def trusting(given: str | type | Iterable[str | type]) -> Iterator[None]:
    """Within this block, files may also use these classes and functions.

    Args:
        given: their dotted names, such as "my_package.Net", or the classes; one or several.

    Raises:
        InputError: a name is no dotted name.
    """
    several = [given] if isinstance(given, str | type) else list(given)
    names = [f"{one.__module__}.{one.__qualname__}" if isinstance(one, type) else str(one) for one in several]
    for name in names:
        if not DOTTED.fullmatch(name):
            raise InputError(f"trust is {name!r}: give the dotted name of one class, as my_package.Net")
    token = _trusted.set(_trusted.get() | frozenset(names))
    try:
        yield
    finally:
        _trusted.reset(token)


def is_trusted(class_path: str) -> bool:
    """Whether the user trusts this class path."""
    return class_path in _trusted.get()


def lookup(class_path: str, kind: type) -> Any:
    """The class or function with a class path, if a file may use it in the place of a ``kind``; None otherwise.

    Only classes and functions that are on a list or that the user trusts are imported.

    Args:
        class_path: the dotted name.
        kind: the base class of the objects that belong there.

    Raises:
        InputError: the user trusts the class path, but it cannot be imported.
    """
    class_path = MOVED.get(class_path, class_path)
    if is_trusted(class_path):
        return _import(class_path)
    return on_list(class_path, kind)


def on_list(class_path: str, kind: type) -> Any:
    """Like ``lookup``, but only for the lists: it ignores what the user trusts."""
    if not DOTTED.fullmatch(class_path):
        return None
    module, _, name = class_path.rpartition(".")
    if name.startswith("_"):
        return None
    for room in ROOMS.get(kind, ()):
        if module in _modules(room):
            found = getattr(importlib.import_module(module), name, None)
            # a package may export what one of its own modules defines
            if inspect.isclass(found) and issubclass(found, kind) and found.__module__ in _modules(room):
                is_base = inspect.isabstract(found) or (found is kind and kind not in ITSELF)
                return None if is_base else found
    listed = LISTED.get(kind)
    found = listed(module, name) if listed else None
    # the class is later built from this path, so the path must lead to the same object
    return found if found is not None and getattr(sys.modules.get(module), name, None) is found else None


@functools.cache
def _modules(room: str) -> frozenset[str]:
    """The names of a package and its modules, or of one module. The modules are not imported."""
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
            f"{class_path} is trusted, but cannot be imported: run in the folder that contains it, or set PYTHONPATH"
        ) from error


def _network(module: str, name: str) -> Any:
    """The functions of torchvision and timm that make a network, if torchvision or timm lists the name, and the
    activations of torch.
    """
    if module in ("torch.nn", "torch.nn.modules.activation"):
        return getattr(torch.nn, name) if name in OF_TORCH else None
    if re.fullmatch(r"torchvision\.models(\.\w+)?", module):
        from torchvision import models

        found = getattr(models, name, None)
        return found if name in models.list_models(module=models) and inspect.isfunction(found) else None
    if (module, name) == ("timm", "create_model") and importlib.util.find_spec("timm"):
        return importlib.import_module("timm").create_model
    return None


def _of_torch(package: Any, kind: type) -> Callable[[str, str], Any]:
    """A function that finds the classes of a package of torch, except the base class."""

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
"""The packages and modules that define this program's classes of a kind. Other parts add theirs with ``offer``."""
ITSELF: set[type] = set()
"""The kinds that a file may use themselves. A file may use only subclasses of the other kinds."""
LISTED: dict[type, Callable[[str, str], Any]] = {
    nn.Module: _network,
    torch.optim.Optimizer: _of_torch(torch.optim, torch.optim.Optimizer),
    torch.optim.lr_scheduler.LRScheduler: _of_torch(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
}
"""For each kind, a function that finds an allowed class of another package by its module and name."""


def offer(kind: type, *rooms: str, itself: bool = False, package: str = "", names: Collection[str] = ()) -> None:
    """Adds classes of a kind to the lists, so that files may use them.

    Args:
        kind: the base class.
        rooms: names of modules and packages of this program that define such classes.
        itself: whether a file may use the base class itself, too.
        package: another package.
        names: names of classes that ``package`` exports and that a file may use.
    """
    ROOMS[kind] = rooms
    if itself:
        ITSELF.add(kind)
    if names:
        LISTED[kind] = _of_package(package, names)
