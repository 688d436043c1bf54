"""Networks of torchvision and timm on the command line: short names, and how they are built.

The options keep the class paths that the user gave, and so does config.yaml. Only when the parts of a run are built,
the functions of torchvision and timm are called through ``foreign_network``.
"""

from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from torchvision.models import ShuffleNetV2

from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.config_files import find
from distill_lightning.data.base import ImageData
from distill_lightning.files import parse_yaml, read_yaml
from distill_lightning.models import foreign
from distill_lightning.models.activations import OF_TORCH
from distill_lightning.values import DataInfo

LIBRARIES = ("torchvision:", "timm:")
NO_FILE = "#" * 4096 + "\n"
"""The beginning of a YAML text as a value of ``--config``, which no name of a file can have."""
PLAIN_NETWORK = f"{PlainNetwork.__module__}.{PlainNetwork.__name__}"
BUILDER = f"{foreign.__name__}.{foreign.foreign_network.__name__}"

BLOCK = "inverted_residual"
"""The argument of torchvision's ShuffleNets that is a class."""


def hide_block_of_shufflenets() -> None:
    """Lets the parser take the class in `BLOCK` as it is. From torchvision's hint it would ask for its arguments."""
    ShuffleNetV2.__init__.__annotations__[BLOCK] = Any


def without_block(config: Any) -> None:
    """Removes `BLOCK` from parsed options, which it is in by default: options are plain data."""
    if isinstance(config, list):
        for one in config:
            without_block(one)
    elif isinstance(config, Namespace):
        if str(config.get("class_path")).startswith("torchvision.models.shufflenet"):
            config.init_args.pop(BLOCK, None)
        for one in vars(config).values():
            without_block(one)


def with_class_paths(args: list[str]) -> list[str]:
    """Replaces the short names of networks and of torch's activations by class paths, in arguments and in the files
    that ``--config`` names.

    Args:
        args: the arguments of a command, after ``expand_configs``.

    Raises:
        InputError: there is no such network.
    """
    replaced: list[str] = []
    before = ""
    for argument in args:
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        option = option if equals else before
        if option == "--config":
            argument = f"--config={_config(value)}" if equals else _config(value)
        elif option.rpartition(".")[2] in ("network", "class_path") and (spec := foreign.spelled_out(value)):
            argument = f"{option}={spec['class_path']}" if equals else spec["class_path"]
            name = option.removesuffix(".class_path")
            replaced += [argument, *(f"{name}.{key}={one}" for key, one in spec["init_args"].items())]
            before = argument
            continue
        elif option.endswith(".activation") and value in OF_TORCH:
            argument = f"{option}=torch.nn.{value}" if equals else f"torch.nn.{value}"
        replaced.append(argument)
        before = argument
    return replaced


def _config(value: str) -> str:
    """The value of a ``--config``; as text with class paths, if it has short names of networks."""
    file = find(value) if "\n" not in value else None
    text = value if file is None else file.read_text(encoding="utf-8", errors="replace")
    if not any(word in text for word in (*LIBRARIES, "activation:")):
        return value
    content = parse_yaml(text, "a --config") if file is None else read_yaml(file)
    return NO_FILE + yaml.safe_dump(_spelled_out(content), sort_keys=False)


def _spelled_out(value: Any, key: str = "") -> Any:
    if isinstance(value, list):
        return [_spelled_out(one, key) for one in value]
    if isinstance(value, str) and key in ("network", "peers"):
        return foreign.spelled_out(value) or value
    if isinstance(value, str) and key == "activation":
        return f"torch.nn.{value}" if value in OF_TORCH else value
    if not isinstance(value, dict):
        return value
    if key == "activation" and value.get("class_path") in OF_TORCH:
        return value | {"class_path": f"torch.nn.{value['class_path']}"}
    inner = {name: _spelled_out(one, str(name)) for name, one in value.items()}
    spec = foreign.spelled_out(inner["class_path"]) if isinstance(inner.get("class_path"), str) else None
    if spec is not None:
        given = inner.get("init_args") or {}
        inner |= {"class_path": spec["class_path"], "init_args": spec["init_args"] | given}
    return inner


def with_builders(config: Any, info: DataInfo | ImageData, fetches: bool) -> Any:
    """Options in which each function of torchvision and timm is replaced by a call of ``foreign_network``.

    Args:
        config: resolved options. They are not changed.
        info: the data, which give classes, channels and picture size where the options do not.
        fetches: whether the networks that the run trains may fetch trained weights. Those of a teacher always may.

    Raises:
        InputError: a ``PlainNetwork`` cannot be built, which this function does itself.
    """
    if isinstance(config, list):
        return [with_builders(one, info, fetches) for one in config]
    if not isinstance(config, Namespace):
        return config
    class_path = config.get("class_path")
    if isinstance(class_path, str) and foreign.is_foreign(class_path):
        given = dict(vars(config.get("init_args") or Namespace())) | (config.get("dict_kwargs") or {})
        shape = {"num_classes": info.num_classes, "in_channels": info.channels}
        if foreign.takes_size(class_path, given):
            shape["image_size"] = info.image_size
        own = {
            "class_path": class_path,
            "arguments": shape | given | {"num_classes": info.num_classes},
            "fetch": fetches,
        }
        return Namespace(class_path=BUILDER, init_args=Namespace(**own))
    is_plain = class_path == PLAIN_NETWORK
    inner = Namespace()
    for name, value in vars(config).items():
        inner[name] = with_builders(value, info, fetches or is_plain)
    return _plain_network(inner) if is_plain else inner


def _plain_network(specification: Namespace) -> PlainNetwork:
    """Builds a network with its weights. The parser would hide the reason of a failure among those of other types."""
    parser = ArgumentParser()
    parser.add_subclass_arguments(PlainNetwork, "plain")
    made: PlainNetwork = parser.instantiate_classes(Namespace(plain=specification)).plain
    return made
