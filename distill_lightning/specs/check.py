"""Compares plain data from a file with the type hints of its options, before anything is built from it."""

import importlib
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill_lightning.errors import InputError
from distill_lightning.files import nested_values, parse_yaml
from distill_lightning.specs.arguments import NUMBERS, TEXTS, holds_many, leaves, parameters
from distill_lightning.specs.lists import DOTTED, LISTED, ROOMS, is_trusted, lookup, on_list

SPEC = {"class_path", "init_args", "dict_kwargs"}
"""The keys of a specification."""
LARGEST = 10**12
"""The largest number that a file may give as a size, a count or a seed."""
MOST_NAMED = 5
"""The largest number of class paths that an error lists."""
FETCHES = ("weights_backbone", "checkpoint_path")
"""Arguments of networks of torchvision and timm that download or open files."""
ASKS = ("pretrained", "weights")
"""Arguments of networks of torchvision and timm that ask for trained weights. They are allowed for a network whose
weights are in the file: then nothing is fetched."""
WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.]*", re.ASCII)
"""The name of trained weights, as "DEFAULT" or "ResNet50_Weights.IMAGENET1K_V2"."""
PLAIN_NETWORK = "PlainNetwork"
"""The class for networks with weights of another file."""
OPTIONS = (".yaml", ".yml", ".json", ".jsonnet", ".toml", ".py")
"""Suffixes of configuration files. A parser would open such a file if its name is given in the place of a class."""


def is_spec(value: Any) -> bool:
    """Whether ``value`` is a dict with a class path."""
    return isinstance(value, dict) and "class_path" in value


def arguments_of(spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a specification, by name; None if it does not give them by name."""
    parts = [spec.get(name) or {} for name in ("init_args", "dict_kwargs")]
    named = all(isinstance(part, dict) and all(isinstance(key, str) for key in part) for part in parts)
    return {**parts[0], **parts[1]} if named else None


def short(value: Any) -> str:
    """A value as text of at most 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) < 80 else text[:77] + "..."


@dataclass(frozen=True)
class Demand:
    """One class that a file asks for.

    Args:
        class_path: the class path in the file.
        key: the option that the class is for.
        state: "allowed" if the class is on a list, "trusted" if the user trusts it, otherwise "unknown".
    """

    class_path: str
    key: str
    state: Literal["allowed", "trusted", "unknown"]


@dataclass
class _Found:
    imports_trusted: bool = True
    in_plain: bool = False
    """Whether the part that is checked lies in a PlainNetwork, whose weights are not in the file."""
    faults: list[str] = field(default_factory=list)
    asked: list[Demand] = field(default_factory=list)


def requests(data: Any) -> list[str]:
    """Every class path in plain data, at any depth, in its order."""

    def walk(value: Any) -> Iterator[str]:
        if is_spec(value):
            yield str(value["class_path"])
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
            yield from walk(inner)

    for _ in nested_values(data, "the file"):  # checks the size and the depth before the recursion
        pass
    return list(dict.fromkeys(walk(data)))


def demands(
    config: Mapping[str, Any], kinds: Mapping[str, Any], imports_trusted: bool = True
) -> tuple[list[Demand], list[str]]:
    """The classes that plain data asks for, and everything else that is wrong with it.

    Args:
        config: plain data from a file.
        kinds: the type hint of each of its keys.
        imports_trusted: whether to import the classes that the user trusts, to check their arguments.

    Returns:
        The classes, and the faults as texts.

    Raises:
        InputError: a class that the user trusts cannot be imported.
    """
    found = _Found(imports_trusted)
    for key, value in config.items():
        if key not in kinds:
            found.faults.append(f"an option {short(key)}, which there is not")
        else:
            _check(value, kinds[key], key, found)
    return list({(demand.class_path, demand.state): demand for demand in found.asked}.values()), found.faults


def refuse_untrusted(config: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """Refuses plain data that uses classes or values that a file may not use.

    Args:
        config: plain data from a file.
        kinds: the type hint of each of its keys.
        where: the file, for the error.

    Raises:
        InputError: there is such a class or value. For classes, the message names the options that would allow them.
    """
    asked, faults = demands(config, kinds)
    unknown = [demand.class_path for demand in asked if demand.state == "unknown"]
    if unknown:
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        words = " ".join(f"--trust {path}" for path in unknown[:MOST_NAMED])
        raise InputError(
            f"{where} asks for {', '.join(unknown[:MOST_NAMED])}{more}, which this program does not build from a file: "
            f"if you know who made it, add {words}"
        )
    if faults:
        raise InputError(f"{where} has {faults[0]}: it is not built")


def _check(value: Any, hint: Any, key: str, found: _Found) -> None:
    """Collects the faults of a value for an option with this type hint."""
    if is_spec(value):
        _check_spec(value, hint, key, found)
        return
    if isinstance(value, dict | list | tuple) and leaves(hint)[0] and not holds_many(hint):
        found.faults.append(f"a {type(value).__name__} as {key}, where one class with its arguments belongs")
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            if isinstance(inner_key, str):
                _check_text(inner_key, key, found)
            elif not isinstance(inner_key, int | float | None):
                found.faults.append(f"a key of {key} that is no name")
            _check(inner, hint, f"{key}.{short(inner_key)}" if len(key) < 200 else key, found)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner, hint, key, found)
    elif isinstance(value, str):
        kinds, plain = leaves(hint)
        _check_text(value, key, found)
        if not any(issubclass(kind, TEXTS) for kind in plain):
            what = "where a class with its arguments belongs" if kinds else "which is no text"
            found.faults.append(f"the text {short(value)} as {key}, {what}")
        elif kinds and (reason := _names_code(value, kinds)):
            found.faults.append(f"the text {short(value)} as {key}, {reason}")
    elif isinstance(value, int | float):
        kinds, plain = leaves(hint)
        if kinds and object not in kinds and not any(issubclass(kind, int | float) for kind in plain):
            found.faults.append(f"the number {value} as {key}, where a class with its arguments belongs")
        elif abs(value) > LARGEST and value not in (float("inf"), float("-inf")):
            found.faults.append(f"{value} as {key}, more than anything here needs")
    elif value is not None:
        found.faults.append(f"{short(value)} as {key}, which is no plain value")


def _check_text(text: str, key: str, found: _Found) -> None:
    if not text.isprintable():
        found.faults.append(f"the text {short(text)} as {key}, with characters that cannot be printed")
    elif "://" in text or text.startswith(("//", "\\\\")):
        found.faults.append(f"the address {short(text)} as {key}, where no address belongs")


def _names_code(text: str, kinds: list[type]) -> str | None:
    """Why a parser could take a string for a class or for a configuration file; None if it could not.

    If an option allows a string or a class, a parser first tries to read the string as a file, as YAML and as a name to
    import.
    """
    if not any(kind.__name__ == PLAIN_NETWORK for kind in kinds):  # the name of an accelerator, for example
        if not all(c.isascii() and (c.isalnum() or c in "_,-") for c in text):
            return "which is no name"
        return "which is the name of a file here: rename that" if os.path.lexists(text) else None
    if Path(text).suffix in OPTIONS:
        return "where a checkpoint belongs"
    try:
        if parse_yaml(text, "the text") != text:
            return "which is no path of a checkpoint"
    except InputError:
        return "which is no path of a checkpoint"
    path = Path(text)
    if path.is_dir():  # the folder of a run stands for its last checkpoint
        path = path / "checkpoints" / "last.ckpt"
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(2)
        if start != b"PK" and start[:1] != b"\x80":
            return "a file that is no checkpoint"
    elif os.path.lexists(text):
        return "which is no file"
    if DOTTED.fullmatch(text) and importlib.util.find_spec(text.partition(".")[0]) is not None:
        return "which is the name of a module too: write ./ before the path"
    return None


def _check_spec(spec: dict[str, Any], hint: Any, key: str, found: _Found) -> None:
    path, arguments = spec["class_path"], arguments_of(spec)
    if not isinstance(path, str) or not DOTTED.fullmatch(path):
        found.faults.append(f"the class_path {short(path)} for {key}, which is no dotted name")
        return
    if odd := spec.keys() - SPEC:
        found.faults.append(f"{short(min(map(str, odd)))} beside the class_path of {key}")
    if arguments is None:
        found.faults.append(f"arguments of {path} that are not given by name")
        return
    find = lookup if found.imports_trusted else on_list
    made_by = next((made_by for kind in leaves(hint)[0] if (made_by := find(path, kind)) is not None), None)
    if made_by is None:
        state = _anywhere(path)
        if state == "allowed":
            untyped = any(kind in (Any, object) for kind in leaves(hint)[0])
            why = "whose type its class does not say: write its type there" if untyped else "where it does not belong"
            found.faults.append(f"{path} as {key}, {why}")
        else:
            found.asked.append(Demand(path, key, state))
        # the arguments are searched too, so that the list of classes is complete
        found.asked.extend(Demand(within, key, _anywhere(within)) for within in requests(arguments))
        return
    found.asked.append(Demand(path, key, "trusted" if is_trusted(path) else "allowed"))
    hints = parameters(made_by)
    foreign = getattr(made_by, "__module__", "").partition(".")[0] in ("torchvision", "timm")
    if path == "timm.create_model":
        arguments = _checked_timm(arguments, key, found)
    for name, value in arguments.items():
        if name in FETCHES + ASKS and foreign:
            is_word = isinstance(value, bool) or (isinstance(value, str) and WORD.fullmatch(value) is not None)
            if value not in (None, False, "", "None") and not (
                name in ASKS and name in hints and is_word and not found.in_plain
            ):
                found.faults.append(f"{short(value)} as {key}.{name}, which would fetch weights")
        elif name not in hints and None not in hints:
            found.faults.append(f"an argument {short(name)}, which {path.rpartition('.')[2]} does not take")
        else:
            outside, found.in_plain = found.in_plain, found.in_plain or path.endswith(PLAIN_NETWORK)
            _check(value, hints.get(name, hints.get(None, NUMBERS)), f"{key}.{name}", found)
            found.in_plain = outside


def _anywhere(path: str) -> Literal["allowed", "trusted", "unknown"]:
    """The state of a class path in a place whose type hint is not known."""
    if is_trusted(path):
        return "trusted"
    return "allowed" if any(on_list(path, kind) is not None for kind in {**ROOMS, **LISTED}) else "unknown"


def _checked_timm(arguments: dict[str, Any], key: str, found: _Found) -> dict[str, Any]:
    """Checks the arguments of timm.create_model: timm must list the name, and none may say where weights come from.

    Returns:
        The other arguments, which still have to be checked.
    """
    if arguments.get("model_name") not in importlib.import_module("timm").list_models():
        name = short(arguments.get("model_name"))
        found.faults.append(f"the text {name} as {key}.model_name, which timm does not list")
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        if arguments.get(name) is not None:
            found.faults.append(f"{short(arguments[name])} as {key}.{name}, which would say where weights come from")
    return {name: value for name, value in arguments.items() if name != "model_name"}
