"""Gives networks the options that the data decide: the number of classes, the channels, the size of pictures."""

import inspect
from typing import Any

from jsonargparse import Namespace

from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.models import foreign
from distill_lightning.runs import SHAPE
from distill_lightning.runs.declared import named_class
from distill_lightning.values import DataInfo

OF_IMAGENET = {"in_channels": 3, "image_size": 224}
"""The options that networks of torchvision and timm have if they are not given."""


def give_shape(model: Namespace, data: ImageData | DataInfo) -> None:
    """Fills in the options of a method's networks that the data gives.

    Args:
        model: the specification of a method. It is changed.
        data: the data that the method is trained on, or their description.

    Raises:
        InputError: the user has given an option with another value than the data have.
    """
    shape = dict(zip(SHAPE, (data.num_classes, data.channels, data.image_size), strict=True))
    for name in ("network", "peers"):
        given = model.init_args.get(name)
        for network in given if isinstance(given, list) else [given] if given else []:
            _fill_in(network, shape, data.name)


def _fill_in(network: Namespace, shape: dict[str, int], data: str) -> None:
    arguments = network.get("init_args") or Namespace()
    name = network.class_path.rpartition(".")[2]
    parameters = inspect.signature(named_class(network.class_path)).parameters
    for key, value in shape.items():
        if key in arguments:
            default = parameters[key].default if key in parameters else arguments[key]
            if arguments[key] not in (0, value, default):
                raise InputError(f"{name}.{key} is {arguments[key]}, but {data} has {value}: leave it out")
            arguments[key] = value
    network["init_args"] = arguments
    within = [v for v in vars(arguments).values() if isinstance(v, Namespace) and "class_path" in v]
    for part in within:  # a network may consist of networks
        _fill_in(part, shape, data)
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    more = _of_foreign(network.class_path, vars(arguments), shape)
    if passes_on and "num_classes" not in arguments:  # most functions of torchvision pass num_classes on
        more["num_classes"] = shape["num_classes"]
    if more:
        network["dict_kwargs"] = more | (network.get("dict_kwargs") or {})


def _of_foreign(class_path: str, arguments: dict[str, Any], shape: dict[str, int]) -> dict[str, int]:
    """The channels and the picture size for a network of torchvision or timm, where they are not those of ImageNet."""
    if not foreign.is_foreign(class_path):
        return {}
    takes = ["in_channels", *(["image_size"] if foreign.takes_size(class_path, arguments) else [])]
    return {name: shape[name] for name in takes if shape[name] != OF_IMAGENET[name]}
