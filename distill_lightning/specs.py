"""What a file may ask to have built, and how a network is built from it.

A specification is plain data: ``{"class_path": "package.Class", "init_args": {...}}``. One that comes from a file
(a checkpoint, or a configuration that the program finds by itself) is checked as a whole before any of it is imported:

- a class path must be on the list of its kind: networks of this package, of torchvision and timm by name; torch's
  optimizers and schedulers; this package's data modules, transforms, methods and callbacks; Lightning's callbacks and
  loggers;
- arguments must be plain data of the kind that the class declares, at every depth; a text where a class belongs is
  refused, so that it is never taken for the path of a file, an address or the name of something to import;
- a network may not need much more memory than the file holds weights for.

What is not on a list is refused by name, unless the user has trusted it by name: ``--trust my_package.Net`` on the
command line, ``with trusting(["my_package.Net"])`` in Python. There is no way to trust everything.
"""

import collections.abc
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from distill_lightning.errors import InputError
from distill_lightning.files import nested_values

_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())

MOVED: dict[str, str] = {}
"""Class paths in files of earlier versions, and where the classes are now."""

PLAIN = (str, int, float, bool, bytes, complex, type(None), Path, PathLike, timedelta)
"""Types of arguments that hold no other object."""
TEXTS = (str, bytes, Path, PathLike, timedelta)
"""Those of them that a text may be given for."""
NUMBERS = int | float | None
LARGEST = 10**12
"""No size, count or seed in a file is larger."""
SLACK = 1 << 24
"""Numbers that a network may allocate beyond four times its weights: small networks make tables of their own."""


@contextmanager
def trusting(names: Iterable[str]) -> Iterator[None]:
    """Within this block, files may ask for these classes and functions, by their dotted names, as well."""
    names = list(names)
    for name in names:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name, re.ASCII):
            raise InputError(f"trust is {name!r}: give the dotted name of one class, as my_package.Net")
    token = _trusted.set(_trusted.get() | frozenset(names))
    try:
        yield
    finally:
        _trusted.reset(token)


@dataclass(frozen=True)
class NetworkSpec:
    """Which network: a class path and plain data.

    Args:
        class_path: the dotted name of a class, or of a function that makes a network.
        init_args: its arguments; networks within networks are specifications of the same form.
    """

    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Any, where: str) -> "NetworkSpec":
        """From plain data.

        Raises:
            InputError: it is not a dict with a class path.
        """
        if not is_spec(config) or not isinstance(config["class_path"], str):
            raise InputError(f"{where} does not describe a network by class_path and init_args: {_short(config)}")
        arguments = {**(config.get("init_args") or {}), **(config.get("dict_kwargs") or {})}
        return cls(MOVED.get(config["class_path"], config["class_path"]), arguments)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return {"class_path": self.class_path, "init_args": dict(self.init_args)}

    def build(self, where: str, weights: int | None = None) -> nn.Module:
        """The network, checked all the way down first.

        Args:
            where: the file that the specification comes from, for errors.
            weights: how many numbers the file holds for it, which bounds what it may allocate; None for no file.

        Raises:
            InputError: it asks for what is not allowed, cannot be built, or is too large.
        """
        refuse_untrusted({"network": self.as_dict()}, {"network": nn.Module}, where)
        with allocating_at_most(None if weights is None else 4 * weights + SLACK, where):
            try:
                return typing.cast(nn.Module, _build(self.as_dict(), nn.Module))
            except InputError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                raise InputError(f"{where} describes a network that cannot be built: {self.class_path}: {reason}") from error


def is_spec(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) < 80 else text[:77] + "..."


# What may be named


def lookup(class_path: str, kind: type) -> Any:
    """The class or function of that dotted name, if a file may ask for it where a ``kind`` belongs; None otherwise.

    Nothing outside the lists, and what the user trusts, is imported.
    """
    class_path = MOVED.get(class_path, class_path)
    if class_path in _trusted.get():
        return _import(class_path)
    module, _, name = class_path.rpartition(".")
    for room in ROOMS.get(kind, ()):
        if module in _modules(room):
            found = getattr(importlib.import_module(module), name, None)
            if inspect.isclass(found) and issubclass(found, kind) and found.__module__ == module:
                return found if not inspect.isabstract(found) else None
    if listed := LISTED.get(kind):
        return listed(module, name)
    return None


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
        raise InputError(f"{class_path} is trusted, but cannot be imported: run where it can, or set PYTHONPATH") from error


def _network(module: str, name: str) -> Any:
    """Constructors of torchvision and timm, by the names that these list."""
    if re.fullmatch(r"torchvision\.models(\.\w+)?", module):
        from torchvision import models

        found = getattr(models, name, None)
        return found if name in models.list_models(module=models) and inspect.isfunction(found) else None
    if (module, name) == ("timm", "create_model") and importlib.util.find_spec("timm"):
        return importlib.import_module("timm").create_model
    return None


def _optimizer(module: str, name: str) -> Any:
    found = getattr(torch.optim, name, None)
    ours = inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)
    return found if ours and re.fullmatch(r"torch\.optim(\.\w+)?", module) else None


def _scheduler(module: str, name: str) -> Any:
    found = getattr(torch.optim.lr_scheduler, name, None)
    ours = inspect.isclass(found) and issubclass(found, torch.optim.lr_scheduler.LRScheduler)
    return found if ours and module == "torch.optim.lr_scheduler" else None


def _of_lightning(room: str) -> Callable[[str, str], Any]:
    def listed(module: str, name: str) -> Any:
        if module != room and not re.fullmatch(rf"{re.escape(room)}(\.\w+)+", module):
            return None
        package = importlib.import_module(room)
        found = getattr(package, name, None) if name in package.__all__ else None
        return found if inspect.isclass(found) else None

    return listed


ROOMS: dict[type, tuple[str, ...]] = {nn.Module: ("distill_lightning.models",)}
"""Where this package keeps its classes of a kind. The rooms above add theirs (``offer``)."""
LISTED: dict[type, Callable[[str, str], Any]] = {
    nn.Module: _network,
    torch.optim.Optimizer: _optimizer,
    torch.optim.lr_scheduler.LRScheduler: _scheduler,
}
"""What of other packages may be named, by module and name."""


def offer(kind: type, *rooms: str, lightning: str | None = None) -> None:
    """Files may ask for the classes of this kind that these modules and packages define.

    Args:
        kind: the base class.
        rooms: names of modules of this package.
        lightning: the package of Lightning that exports its own.
    """
    ROOMS[kind] = rooms
    if lightning is not None:
        LISTED[kind] = _of_lightning(lightning)


# What is asked for


def requests(data: Any) -> list[str]:
    """Every class path in plain data, at any depth, in the order of the text."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if is_spec(value):
            found.append(str(value["class_path"]))
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
            walk(inner)

    for _ in nested_values(data, "the file"):  # bounded before it is walked
        pass
    walk(data)
    return list(dict.fromkeys(found))


def refuse_untrusted(config: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """Refuses plain data that asks for more than it may.

    Args:
        config: from a file.
        kinds: the type hint of each of its keys.
        where: the file, for the error.

    Raises:
        InputError: naming all that is not allowed, and the words that allow it.
    """
    faults: list[str] = []
    unknown: list[str] = []
    for key, value in config.items():
        if key not in kinds:
            faults.append(f"an option {key!r}, which there is not")
        else:
            _check(value, kinds[key], str(key), faults, unknown)
    if unknown:
        words = " ".join(f"--trust {path}" for path in unknown)
        raise InputError(
            f"{where} asks for {', '.join(unknown)}, which this program does not build from a file: "
            f"if you know who made it, add {words}"
        )
    if faults:
        raise InputError(f"{where} has {faults[0]}: it is not built")


def _check(value: Any, hint: Any, key: str, faults: list[str], unknown: list[str]) -> None:
    """Collects what is wrong with a value that belongs where the type hint stands."""
    if is_spec(value):
        _check_spec(value, hint, key, faults, unknown)
    elif isinstance(value, dict):
        for inner_key, inner in value.items():
            if not isinstance(inner_key, str | int | float | bool | None):
                faults.append(f"a key of {key} that is no name")
            _check(inner, hint, f"{key}.{inner_key}", faults, unknown)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner, hint, key, faults, unknown)
    elif isinstance(value, str):
        kinds, plain = leaves(hint)
        is_text = any(issubclass(kind, TEXTS) for kind in plain)
        if kinds and not (is_text and not _names_code(value, kinds)):
            faults.append(f"the text {_short(value)} as {key}, where a class with its arguments belongs")
        elif not is_text:
            faults.append(f"the text {_short(value)} as {key}, which is no text")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) > LARGEST and value not in (float("inf"), float("-inf")):
            faults.append(f"{value} as {key}, more than anything here needs")
    elif value is not None and not isinstance(value, bool):
        faults.append(f"{_short(value)} as {key}, which is no plain value")


def _names_code(text: str, kinds: list[type]) -> bool:
    """Whether a text could be taken for a class, a file of options, or an address. A path of a checkpoint is data."""
    if any(kind.__name__ == "PlainNetwork" for kind in kinds):
        return "://" in text or Path(text).suffix in (".yaml", ".yml", ".json", ".py")
    return not re.fullmatch(r"[\w,-]*", text, re.ASCII)


def _check_spec(spec: dict[str, Any], hint: Any, key: str, faults: list[str], unknown: list[str]) -> None:
    path, kinds = str(spec["class_path"]), leaves(hint)[0]
    if odd := spec.keys() - {"class_path", "init_args", "dict_kwargs"}:
        faults.append(f"{min(map(str, odd))!r} beside the class_path of {key}")
    found = next((found for kind in kinds if (found := lookup(path, kind)) is not None), None)
    if found is None:
        unknown.append(path)
        # what it would be given is looked through all the same, so that the list is complete
        unknown.extend(p for p in requests(spec.get("init_args")) if p != path)
        return
    arguments = {**(spec.get("init_args") or {}), **(spec.get("dict_kwargs") or {})}
    hints = parameters(found)
    if path == "timm.create_model":
        _check_timm(arguments, key, faults)
        arguments.pop("model_name", None)
    for name, value in arguments.items():
        if name in ("pretrained", "weights", "weights_backbone", "checkpoint_path") and _foreign(found):
            if value not in (None, False, "", "None"):
                faults.append(f"{_short(value)} as {key}.{name}, which would fetch weights")
        elif name not in hints and None not in hints:
            faults.append(f"an argument {name!r}, which {path.rpartition('.')[2]} does not take")
        else:
            _check(value, hints.get(name, hints.get(None, NUMBERS)), f"{key}.{name}", faults, unknown)


def _foreign(found: Any) -> bool:
    return getattr(found, "__module__", "").partition(".")[0] in ("torchvision", "timm")


def _check_timm(arguments: dict[str, Any], key: str, faults: list[str]) -> None:
    name = arguments.get("model_name")
    if name not in importlib.import_module("timm").list_models():
        faults.append(f"the text {_short(name)} as {key}.model_name, which timm does not list")


# Types of arguments


def parameters(found: Any) -> dict[str | None, Any]:
    """The type hint of each argument of a class or function, those that it passes on to its base classes included.

    Under None stands what any other argument may be: numbers alone, where keywords are passed on to somebody else.
    """
    if not inspect.isclass(found):
        return _of_function(found)[0]
    hints: dict[str | None, Any] = {}
    for base in found.__mro__:
        if "__init__" in vars(base):
            own, passes_on = _of_function(vars(base)["__init__"])
            hints = {**own, **hints}
            if not passes_on:
                hints.pop(None, None)
                return hints
    return hints


def _of_function(function: Any) -> tuple[dict[str | None, Any], bool]:
    signature = inspect.signature(function)
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # names that only a type checker sees: then texts are refused
        hints = {}
    found: dict[str | None, Any] = {
        name: hints.get(name)
        for name, parameter in signature.parameters.items()
        if name != "self" and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    passes_on = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    if passes_on:
        found[None] = NUMBERS
    return found, passes_on


def leaves(hint: Any) -> tuple[list[type], list[type]]:
    """The classes that objects at a type hint may have, and the plain types beside them. What a callable gives counts."""
    if hint is None:
        return [], [type(None)]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return [], list({type(value) for value in arguments})
    if origin is typing.Annotated:
        return leaves(arguments[0])
    if origin is collections.abc.Callable:
        return _joined([arguments[1]]) if len(arguments) == 2 else ([object], [])
    if origin is not None or isinstance(hint, types.UnionType):
        return _joined(a for a in arguments if a is not Ellipsis)
    if inspect.isclass(hint):
        is_plain = issubclass(hint, PLAIN) or hint in (list, dict, tuple, set)
        if hint in (list, dict, tuple, set):
            return [], [int]
        return ([], [hint]) if is_plain else ([_kind_of(hint)], [])
    return [object], []  # a type variable, Any: nothing may be built there, and no text may stand there


def _kind_of(hint: type) -> type:
    """The kind that a class belongs to: Optimizer for an optimizer's class."""
    return next((kind for kind in {**ROOMS, **LISTED} if kind is not nn.Module and issubclass(hint, kind)), hint)


def _joined(hints: Iterable[Any]) -> tuple[list[type], list[type]]:
    kinds: list[type] = []
    plain: list[type] = []
    for hint in hints:
        some_kinds, some_plain = leaves(hint)
        kinds += [kind for kind in some_kinds if kind not in kinds]
        plain += [kind for kind in some_plain if kind not in plain]
    return kinds, plain


# Building


def _build(value: Any, hint: Any) -> Any:
    """Objects for checked plain data."""
    if isinstance(value, list):
        return [_build(inner, hint) for inner in value]
    if not is_spec(value):
        return {k: _build(v, hint) for k, v in value.items()} if isinstance(value, dict) else value
    kinds, _ = leaves(hint)
    made_by = next(found for kind in kinds if (found := lookup(value["class_path"], kind)) is not None)
    hints = parameters(made_by)
    given = {**(value.get("init_args") or {}), **(value.get("dict_kwargs") or {})}
    arguments = {name: _build(inner, hints.get(name)) for name, inner in given.items()}
    if typing.get_origin(hint) is collections.abc.Callable:
        return functools.partial(made_by, **arguments)
    return made_by(**arguments)


_FACTORIES = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye, torch.arange, torch.linspace,
    torch.randperm, torch.logspace, torch.empty_strided, torch.tril_indices, torch.triu_indices,
}  # fmt: skip
_SIZES = {torch.Tensor.repeat, torch.Tensor.new_empty, torch.Tensor.new_zeros, torch.Tensor.new_ones, torch.tile}


class _Allocations(TorchFunctionMode):
    """Adds up what is about to be allocated, before it is."""

    def __init__(self, most: int, where: str) -> None:
        super().__init__()
        self.most, self.where, self.total = most, where, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES and "out" not in kwargs:
            self._count(func(*args, **{**kwargs, "device": "meta"}).numel())
        elif func in _SIZES:
            self._count(func(args[0].to("meta"), *args[1:], **kwargs).numel())
        return func(*args, **kwargs)

    def _count(self, numbers: int) -> None:
        self.total += numbers
        if self.total > self.most:
            raise InputError(
                f"{self.where} describes a network of {self.total:,} numbers or more, where {self.most:,} are allowed "
                "by the weights that it holds: it is not built"
            )


@contextmanager
def allocating_at_most(numbers: int | None, where: str) -> Iterator[None]:
    """Within this block, torch's constructors of tensors may make so many numbers in all; None for no limit.

    Raises:
        InputError: before more are allocated.
    """
    if numbers is None:
        yield
        return
    with _Allocations(numbers, where):
        yield


def count_numbers(content: Any, where: str) -> int:
    """How many numbers the tensors in a file's content hold."""
    return sum(value.numel() for value in nested_values(content, where) if isinstance(value, Tensor))
