"""One-line errors for wrong options: what was given, what was expected, and the nearest correct name."""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser

from distill_lightning.cli.verbs import OTHER_VERBS
from distill_lightning.config_files import suggestion
from distill_lightning.data.augment import Transform
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError, first_input_error, nearest
from distill_lightning.methods.base import Method
from distill_lightning.schedules import Schedule

NAMED_BY_CLASS_PATH = (Method, ImageData, Transform, Schedule, Callback, torch.optim.Optimizer)
NETWORKS = "distill_lightning.models"


class Parser(LightningArgumentParser):
    """A parser whose errors have one line and end the command with status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the error.

        Raises:
            InputError: always, with one line. A nested parser raises jsonargparse's own error instead.
        """
        if not self.exit_on_error:  # a nested parser: its message becomes a part of the outer parser's message
            super().error(message, ex)
        ours = first_input_error(ex)
        raise InputError(str(ours) if ours else explain(message, self._option_string_actions)) from ex


CALLED = {
    "epochs": "--trainer.max_epochs", "lr": "--model.optimizer.lr", "learning_rate": "--model.optimizer.lr",
    "seed": "--seed_everything", "batch_size": "--data.batch_size", "optimizer": "--model.optimizer",
}  # fmt: skip
"""The full options for the short names that other programs use."""


def explain(message: str, options: Iterable[str] = ()) -> str:
    """Turns jsonargparse's message about a wrong option into one line.

    Args:
        message: jsonargparse's text. It has many lines, and may have a part for every type of a union.
        options: the option strings of the command.
    """
    text = " ".join(message.split())
    # after the named class has refused an option, jsonargparse also tries the base class, and reports it too
    text = re.sub(r" - Problem with given class_path 'lightning.Callback': Option '\w+' is not accepted", "", text)
    key = ".".join(k for k in re.findall(r'Parser key "([^"]+)"', text) if k)
    if found := re.search(r"unrecognized arguments: (\S+)", text, re.IGNORECASE):
        name = found[1].partition("=")[0]
        meant = CALLED.get(name.rpartition(".")[2].lstrip("-"))
        return f"there is no option {name}{f'; did you mean {meant}?' if meant else nearest(name, options)}"
    refused = re.search(r"Problem with given class_path '[\w.]*?(\w+)': Option '([^']+)' is not accepted", text)
    if refused and key == "trainer.callbacks" and refused[2] in _parameters():
        name, option = refused[1], refused[2]
        return (
            f"{name}, the last of trainer.callbacks, has no option {option}: give --{key}.{option} before the --config "
            f"that adds {name}"
        )
    if found := re.search(r"Option '([^']+)' is not accepted", text):
        return f"{key} has no option {found[1]}{nearest(found[1], _parameters() - {found[1]})}"
    if found := re.search(r"Key '([^']+)' is not expected", text):
        return f"there is no option {found[1]}{nearest(found[1], [o.lstrip('-') for o in options])}"
    unions = re.findall(r"Subtypes: \[([^\]]+)\] Errors: (?:(?!Subtypes).)*? Given value: (\w[^\s(]*?)\.?(?: |$)", text)
    for types, given in reversed(unions):  # the innermost union comes last
        if plain := [t for t in _plain(types).split(", ") if t in ("int", "float", "str", "bool")]:
            return f"{key} is {given}: expected {' or '.join(plain)}"
    if found := re.search(r"Expected a typing\.Literal\[([^]]+)\]\. Got value: (.+?)(?: - | Given value|$)", text):
        return f"{key} is {found[2]}: expected one of {found[1].replace(chr(39), '')}"
    if found := re.search(r"Expected an? ([^.-]+?)\. Got value: (.+?)(?: - | Given value|$)", text):
        return f"{key} is {found[2]}: expected {_plain(found[1])}"
    if found := re.search(r"module '([^']+)' has no attribute '([^']+)'", text):
        return f"{key}: {found[0]}{nearest(found[2], dir(sys.modules.get(found[1])))}"
    if found := re.search(r"Multiple subclasses with name (\w+)\. Give the full class path[^:]*: (.*?)\. ", text):
        return f"{key}: there are several {found[1]}: give one of {found[2]}"
    if found := re.search(r"name '\w+' is not defined|No module named '[^']+'|cannot import name .*?\)", text):
        return f"{key} cannot be imported: {found[0]}"
    if found := re.search(r"Expected a dot import path string: (\S+)", text):
        return f"{key} is {found[1]}, which is no known class{nearest(found[1], _classes())}"
    if found := re.search(r"Import path (\S+) does not correspond to a subclass of Module", text):
        return (
            f"{key}: {found[1]} is no class of networks, and no function that says it returns one: write "
            "-> torch.nn.Module behind its arguments"
        )
    if found := re.search(r"File does not exist: '([^']+)'", text):
        path = Path(found[1])
        beside = [str(f) for f in path.parent.glob("*")]
        return f"there is no file {path}{nearest(str(path), beside) or suggestion(path)}"
    if found := re.search(r"invalid choice: '([^']+)' \(choose from (.*)\)", text):
        commands = [*found[2].replace("'", "").split(", "), *OTHER_VERBS]
        return f"there is no command {found[1]}{nearest(found[1], commands)}: use one of {', '.join(commands)}"
    if "but it was not provided" in text or "arguments are required" in text:
        text = text.replace("predict,bench}", ",".join(["predict,bench", *OTHER_VERBS]) + "}")
        return f"{text} -- give a --config FILE; distill --help lists the commands".replace("fit.", "--")
    if found := re.search(r"Problems parsing config: (.*)", text):
        return "a --config is no YAML: " + found[1].replace('in "<unicode string>", ', "")
    if "does not accept option 'runs." in text:
        return "a --config is a study: run it with distill study FILE"
    if re.search(r"Subtypes: \[list\[[^]]*\][^]]*\] Errors: - Expected a list", _plain(text)):
        return f"{key}: expected a list, as '[A, B]'"
    if key == "trainer.callbacks" and (found := re.search(r"NestedArg\(key='(\w+)'", text)):
        return f"{key}.{found[1]}: there is no callback with this option: put a --config that adds one before it"
    return _plain(re.sub(r"Parser key \"[^\"]+\": ?", "", f"{key}: {text}" if key else text))[:400]


def _plain(text: str) -> str:
    return re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", text)


def _subclasses(base: type) -> Iterator[type]:
    found: type
    for found in base.__subclasses__():
        yield found
        yield from _subclasses(found)


def _known() -> list[type]:
    networks = [c for c in _subclasses(torch.nn.Module) if c.__module__.startswith(NETWORKS)]
    return [c for base in NAMED_BY_CLASS_PATH for c in _subclasses(base)] + networks


def _classes() -> set[str]:
    return {c.__name__ for c in _known()}


def _parameters() -> set[str]:
    """The arguments of all classes that an option can name, inherited arguments included."""
    return {name for c in _known() for base in c.__mro__ for name in _arguments(base)}


def _arguments(found: type) -> Iterable[str]:
    return inspect.signature(vars(found).get("__init__", object.__init__)).parameters
