"""Networks of torchvision and timm, with one's own number of classes, channels and picture size.

    torchvision:resnet50        the function torchvision.models.resnet50
    timm:convnext_tiny          timm.create_model with model_name convnext_tiny; needs the package timm

The weights that torchvision and timm offer are put into the network by name and shape: the head is new if it has
another number of classes, the first convolution is adapted to the channels, position embeddings to the picture size.
They are looked for in the folder of torch.hub, and for timm in the cache of Hugging Face, before they are
downloaded.
"""

import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill_lightning.distributed import say
from distill_lightning.errors import InputError, nearest
from distill_lightning.weights import Source, put_weights, read_source

SHAPE = ("num_classes", "in_channels", "image_size")
FETCHES = ("weights", "pretrained")
"""The arguments that ask for trained weights."""
TIMM = "timm.create_model"
OF_HUGGING_FACE = "model.safetensors"
"""The file with the weights in timm's repositories."""
TORCHVISION = re.compile(r"torchvision\.models(\.\w+)?\.(\w+)")
NORMALISE_INSIDE = ("googlenet", "inception_v3")
"""Networks of torchvision whose trained weights need the argument ``transform_input``, which torchvision sets too."""


def is_foreign(class_path: str) -> bool:
    """Whether a class path is a function of torchvision or timm that ``foreign_network`` can call."""
    found = TORCHVISION.fullmatch(class_path)
    return class_path == TIMM or (found is not None and found[2] in _listed())


def spelled_out(short: str) -> dict[str, Any] | None:
    """The specification that a short name such as "torchvision:resnet50" stands for; None for other texts.

    Raises:
        InputError: torchvision or timm has no such network, or timm is not installed.
    """
    library, colon, name = short.partition(":")
    if not colon or library not in ("torchvision", "timm"):
        return None
    if library == "torchvision":
        if name not in _listed():
            raise InputError(f"torchvision has no classification network {name}{nearest(name, _listed())}")
        return {"class_path": f"torchvision.models.{name}", "init_args": {}}
    timm = _timm()
    if not timm.is_model(name):
        raise InputError(f"timm has no network {name}{nearest(name, timm.list_models())}")
    return {"class_path": TIMM, "init_args": {"model_name": name}}


def takes_size(class_path: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a network is built for one picture size, so that the data must give it."""
    if class_path == TIMM:
        name = str(arguments.get("model_name"))
        return bool(_timm().is_model(name) and getattr(_timm().get_pretrained_cfg(name), "fixed_input_size", False))
    return class_path.rpartition(".")[2].startswith(("vit_", "maxvit_"))


def foreign_network(class_path: str, arguments: dict[str, Any], fetch: bool = True) -> nn.Module:
    """Builds a network of torchvision or timm.

    Args:
        class_path: "torchvision.models.resnet50", for example, or "timm.create_model".
        arguments: the arguments of that function. In addition: ``in_channels``, and ``image_size`` for networks that
            are built for one size. ``weights`` (torchvision: DEFAULT or another name) or ``pretrained`` (true) asks for
            trained weights, whatever the number of classes.
        fetch: whether trained weights are looked for at all. A checkpoint has the weights itself.

    Raises:
        InputError: the network cannot be built, or its trained weights are neither on disk nor can be downloaded.
    """
    given = {k: v for k, v in arguments.items() if k not in (*FETCHES, *SHAPE[1:])}
    shape = {k: int(arguments[k]) for k in SHAPE[1:] if arguments.get(k)}
    wanted = (arguments.get("weights") or arguments.get("pretrained") or None) if fetch else None
    if class_path == TIMM:
        return _of_timm(given, shape, bool(wanted))
    return _of_torchvision(class_path.rpartition(".")[2], given, shape, wanted)


def _listed() -> list[str]:
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def _timm() -> Any:
    if importlib.util.find_spec("timm") is None:
        raise InputError("networks of timm need the package timm: pip install 'distill_lightning[timm]'")
    return importlib.import_module("timm")


def _made(what: str, make: Any, given: Mapping[str, Any]) -> nn.Module:
    try:
        made: nn.Module = make(**given)
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise InputError(f"{what} cannot be built: {reason[:120]}") from error
    return made


# torchvision


def _of_torchvision(name: str, given: dict[str, Any], shape: Mapping[str, int], wanted: Any) -> nn.Module:
    from torchvision import models

    if size := shape.get("image_size"):
        given |= {"image_size": size} if name.startswith("vit_") else {}
        given |= {"input_size": (size, size)} if name.startswith("maxvit_") else {}
    entry = None if wanted is None else _weights_entry(name, wanted)
    if entry is not None and name in NORMALISE_INSIDE:
        given = {"transform_input": True, "init_weights": False} | given
    network = _made(f"torchvision:{name}", models.get_model_builder(name), given)
    if (channels := shape.get("in_channels", 3)) != 3:
        _replace_first_convolution(network, channels)
    if entry is not None:
        report = put_weights(network, _fetched(f"torchvision:{name}", entry.url, Path(entry.url).name))
        say(report.line())
    return network


def _weights_entry(name: str, wanted: Any) -> Any:
    from torchvision import models

    known = models.get_model_weights(name)
    label = "DEFAULT" if wanted is True else str(getattr(wanted, "name", wanted)).rpartition(".")[2]
    if label not in known.__members__:
        raise InputError(
            f"torchvision:{name} has no weights {label}: give one of DEFAULT, {', '.join(known.__members__)}"
        )
    return known[label]


def _fetched(who: str, url: str, name: str) -> Source:
    """Reads trained weights from the folder of torch.hub, and downloads them into it if they are not there.

    Args:
        who: the network, for messages.
        url: where the file comes from.
        name: the name of the file in the folder.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        say(f"{who}: downloading {url}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # the name of the file holds the beginning of its SHA-256
            digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
            torch.hub.download_url_to_file(url, str(path), digest[1] if digest else None, progress=False)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{who}: its weights cannot be downloaded: put them as {path.name} into {path.parent}"
            ) from error
    return read_source(path)


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    """Makes the first convolution anew for another number of channels, with weights of the same standard deviation."""
    names = (n for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3 and m.groups == 1)
    parent, _, last = next(names).rpartition(".")
    old: Any = network.get_submodule(f"{parent}.{last}".lstrip("."))
    new = nn.Conv2d(
        channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation, bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )  # fmt: skip
    with torch.no_grad():
        new.weight.normal_(std=float(old.weight.std()))
        if new.bias is not None:
            new.bias.copy_(old.bias)
    setattr(network.get_submodule(parent), last, new)


# timm


def _of_timm(given: dict[str, Any], shape: Mapping[str, int], wanted: bool) -> nn.Module:
    timm, name = _timm(), str(given.get("model_name"))
    if not timm.is_model(name):
        raise InputError(f"timm has no network {name}{nearest(name, timm.list_models())}")
    about = timm.get_pretrained_cfg(name)
    if "in_channels" in shape:
        given["in_chans"] = shape["in_channels"]
    if "image_size" in shape and getattr(about, "fixed_input_size", False):
        given["img_size"] = shape["image_size"]
    if not wanted:
        return _made(f"timm:{name}", timm.create_model, given)
    cached = _in_hugging_face_cache(about.hf_hub_id)
    url = f"https://huggingface.co/{about.hf_hub_id}/resolve/main/{OF_HUGGING_FACE}" if about.hf_hub_id else about.url
    source = read_source(cached) if cached else _fetched(f"timm:{name}", url, f"{_full_name(name, about)}.safetensors")
    weights = dict(next(iter(source.entries.values())))
    # timm itself puts them in: it knows the names in its older files
    given |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": weights}}
    network = _made(f"timm:{name}", timm.create_model, given)
    say(f"weights of timm:{name} from {source.name}")
    return network


def _in_hugging_face_cache(repository: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, OF_HUGGING_FACE) if repository else None
    return found if isinstance(found, str) else None


def _full_name(name: str, about: Any) -> str:
    tag = getattr(about, "tag", None)
    return name if "." in name or not tag else f"{name}.{tag}"
