"""Networks that are given by a class, a function or a name, and are made when the data are known."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from distill_lightning import models
from distill_lightning.errors import InputError, nearest
from distill_lightning.models import foreign

if TYPE_CHECKING:
    Network = nn.Module | Callable[..., nn.Module] | str
else:
    # the parser of the command builds each network before the method, so for it the type of the option is this one
    Network = nn.Module
"""A network, or what makes one: a class, a function, ``functools.partial`` of these, or the name of a class."""


def maker(given: Any) -> functools.partial[nn.Module]:
    """The class or function that makes a network, with the arguments that the user has given.

    Args:
        given: a class, a function, a ``functools.partial``, or a name: "ResNet20" for a class of
            ``distill_lightning.models``, "torchvision:resnet50", "timm:convnext_tiny", or a dotted name.

    Raises:
        InputError: there is no such name, or it is nothing that can be called.
    """
    found = _named(given) if isinstance(given, str) else given
    if not callable(found):
        raise InputError(f"network is a {type(given).__name__}: give a network, a class or function, or a name")
    return found if isinstance(found, functools.partial) else functools.partial(found)


def _named(name: str) -> Any:
    if short := foreign.spelled_out(name):  # torchvision:resnet50 or timm:convnext_tiny
        return functools.partial(_named(short["class_path"]), **short["init_args"])
    module, _, last = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), last) if module else _of_this_package(last)
    except (ImportError, AttributeError) as error:
        raise InputError(f"there is no network {name}: give a dotted name that can be imported") from error
    return found


def _of_this_package(name: str) -> Any:
    known = {n: found for n, found in vars(models).items() if inspect.isclass(found) and issubclass(found, nn.Module)}
    if name not in known:
        raise InputError(f"there is no network {name} in distill_lightning.models{nearest(name, known)}")
    return known[name]


def with_shape(made_by: functools.partial[nn.Module], shape: Mapping[str, int], data: str) -> functools.partial[Any]:
    """The maker of a network with the arguments that the data decide.

    Args:
        made_by: makes a network.
        shape: ``num_classes``, ``in_channels`` and ``image_size`` of the data. The network gets those that it takes.
        data: the name of the data, for the error.

    Raises:
        InputError: the user has given one of these arguments with another value.
    """
    takes = inspect.signature(made_by.func).parameters
    passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    wanted = {name: value for name, value in shape.items() if name in takes}
    if passes_on:  # most functions of torchvision pass num_classes on
        wanted.setdefault("num_classes", shape["num_classes"])
    for name, value in wanted.items():
        if made_by.keywords.get(name, value) != value:
            given = made_by.keywords[name]
            raise InputError(f"the network's {name} is {given}, but {data} has {value}: leave it out")
    return functools.partial(made_by.func, *made_by.args, **{**made_by.keywords, **wanted})
