"""Finds what is wrong in the options of a command: the place, the wrong word, and the right one.

The parser's own errors tell the reason in English prose, with a part for every type of a union. So the first fault is
looked for here, with the same rules: the options are followed in order, from left to right, with the class that each
place has by then.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_lightning import config_files
from distill_lightning.cli import options
from distill_lightning.errors import InputError, nearest, nearest_word
from distill_lightning.files import parse_yaml
from distill_lightning.ranges import refuse_faults
from distill_lightning.runs import SHAPE
from distill_lightning.signatures import Argument

CALLED = {
    "epochs": "--trainer.max_epochs", "lr": "--model.optimizer.lr", "learning_rate": "--model.optimizer.lr",
    "seed": "--seed_everything", "gpus": "--trainer.devices", "checkpoint": "--ckpt_path", "resume": "--ckpt_path",
}  # fmt: skip
"""The full options for the short names that other programs use."""


@dataclass
class Node:
    """What is given at a place.

    Args:
        hint: the type hint of the option.
        made_by: the class or function that is named there.
        parts: its options, by name. For a list of objects: those of each object, by number.
    """

    hint: Any = None
    made_by: Any = None
    parts: dict[str, "Node"] = field(default_factory=dict)
    is_list: bool = False

    def last(self) -> "Node":
        """The object whose options are given: of a list the last one."""
        return list(self.parts.values())[-1] if self.is_list and self.parts else self


@dataclass(frozen=True)
class Given:
    """An option as it is given: ``model.network.width``, its value, and whether it stands on the command line."""

    keys: tuple[str, ...]
    value: Any
    by_hand: bool


def assignments(args: list[str]) -> Iterator[Given]:
    """The options in a command's arguments, in order; those of a file one by one.

    Raises:
        InputError: a file is no YAML with options by name, a word is no option, or an option has no value.
    """
    rest = iter(args)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if not name.startswith("-"):
            raise InputError(f"{argument} is no option: options begin with --, as --config FILE")
        if name.removeprefix("--") in options.FLAGS:
            continue
        if not equals:
            following = next(rest, None)
            if following is None:
                raise InputError(f"{name} has no value: give {name} VALUE")
            value = following
        keys = tuple(name.lstrip("-").split("."))
        if name in ("--config", "-c"):
            yield from _of_file(value)
        else:
            yield Given(keys, value, True)


def _of_file(value: str) -> Iterator[Given]:
    """The options of a ``--config``: a file, or the text of one."""
    path = Path(value) if "\n" not in value and len(value) < 300 else None
    if path is not None and not path.is_file():
        beside = [str(file) for file in path.parent.glob("*.yaml")]
        raise InputError(f"there is no file {path}{nearest(str(path), beside) or config_files.suggestion(path)}")
    text = value if path is None else path.read_text(encoding="utf-8", errors="replace")
    where = "a --config" if path is None else config_files.shown(path)
    content = parse_yaml(text, where)
    if content is None:
        return
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{where} holds a {type(content).__name__}: expected options by name, as data: ...")
    if "runs" in content:
        raise InputError(f"{where} is a study: run it with distill study FILE")
    if "space" in content:
        raise InputError(f"{where} is a search: run it with distill search FILE")
    for key, one in content.items():
        yield Given((key,), one, False)


class Follower:
    """Follows options from left to right.

    Args:
        verb: the verb of the command.
    """

    def __init__(self, verb: str) -> None:
        self.known = options.of_verb(verb)
        self.root = Node()
        for name, made_by in options.GROUPS.items():
            self.root.parts[name] = Node(made_by, made_by)

    def follow(self, given: Given) -> None:
        """Takes an option.

        Raises:
            InputError: there is no such option or class, or the option does not take this value.
        """
        self._set(self.root, self.known, list(given.keys), given, "")

    def _set(self, node: Node, known: Mapping[str, Argument], keys: list[str], given: Given, path: str) -> None:
        name = keys[0].removesuffix("+")
        place = f"{path}.{name}" if path else name
        if name in ("class_path", "init_args", "dict_kwargs") and node is not self.root:
            if name == "init_args" and len(keys) > 1:
                self._set(node, known, keys[1:], given, path)
            return
        if name not in known:
            raise InputError(self._unknown(name, known, given, path))
        argument = known[name]
        if len(keys) == 1:
            child = self._value(argument.hint, given.value, place, given, node.parts.get(name), keys[0].endswith("+"))
            node.parts[name] = child
            return
        child = node.parts.setdefault(name, Node(argument.hint)).last()
        rest = ".".join(keys[1:])
        if child.made_by is None:
            wanted = options.kinds(argument.hint)
            if not wanted:
                raise InputError(f"there is no option --{place}.{rest}: {place} has no options of its own")
            if options.takes_list(argument.hint):
                if place != "trainer.callbacks" and (same := self._same_name(keys[-1])):
                    raise InputError(f"there is no option --{place}.{rest}; did you mean --{same}?")
                raise InputError(
                    f"{place}.{rest}: there is no {_kind(wanted[0])} with this option: put a --config that adds one "
                    "before it"
                )
            alone = len(wanted) == 1 and not inspect.isabstract(wanted[0])
            if not (alone and rest.split(".")[0] in options.of_class(wanted[0])):
                raise InputError(f"--{place}.{rest} comes before its class: give --{place} CLASS first, or a --config")
            child.made_by = wanted[0]
        self._set(child, options.of_class(child.made_by), keys[1:], given, place)

    def _unknown(self, name: str, known: Mapping[str, Argument], given: Given, path: str) -> str:
        dash = "--" if given.by_hand else ""
        full = f"{dash}{path}.{name}" if path else f"{dash}{name}"
        near = nearest_word(name, known)
        same = self._same_name(name)
        meant = CALLED.get(name) or (f"--{same}" if same else None)
        if near is not None and name not in CALLED:
            meant = full.removesuffix(name) + near
        owner = self._lottery(name, given)
        if owner:
            return owner
        hint = f"; did you mean {meant}?" if meant else f": {path} has {_some(known)}" if path else ""
        return f"there is no option {full}{hint}"

    def _same_name(self, name: str) -> str | None:
        """The first option with this name, of any class that is named so far."""
        return next((place for place in self.places() if place.rpartition(".")[2] == name), None)

    def _lottery(self, name: str, given: Given) -> str:
        """The error for an option of an earlier one of several callbacks: options are given to the last one."""
        callbacks = self.root.parts["trainer"].parts.get("callbacks")
        if callbacks is None or given.keys[:2] != ("trainer", "callbacks") or len(callbacks.parts) < 2:
            return ""
        if not any(name in options.of_class(one.made_by) for one in callbacks.parts.values()):
            return ""
        last = callbacks.last().made_by.__name__
        return (
            f"{last}, the last of trainer.callbacks, has no option {name}: give --trainer.callbacks.{name} before the "
            f"--config that adds {last}"
        )

    def _value(self, hint: Any, value: Any, place: str, given: Given, before: Node | None, appends: bool) -> Node:
        """Checks a value, and gives what stands at its place then."""
        wanted = options.kinds(hint)
        if isinstance(hint, type) and hint in options.GROUPS.values():
            return self._group(hint, value, place, given, before)
        if isinstance(value, str) and wanted and value.lstrip().startswith(("[", "{")):
            value = parse_yaml(value, f"--{place}")
        if isinstance(value, list) and wanted and options.takes_list(hint):
            node = Node(hint, is_list=True, parts=dict(before.parts) if appends and before is not None else {})
            for one in value:
                child = self._value(options.element(hint), one, place, given, None, False)
                node.parts[str(len(node.parts))] = child
            return node
        known = before is not None and before.made_by is not None  # by an earlier file, as the one after base:
        if isinstance(value, dict) and wanted and (isinstance(value.get("class_path"), str) or known):
            same = before is not None and "class_path" not in value
            node = before if same and before is not None else self._object(hint, value["class_path"], place, before)
            arguments = value.get("init_args") or {}
            if not isinstance(arguments, dict):
                raise InputError(f"{place}.init_args is {arguments}: expected options by name")
            for key, inner in arguments.items():
                self._set(node, options.of_class(node.made_by), [str(key)], Given((str(key),), inner, False), place)
            return node
        if isinstance(value, str) and wanted and not self._takes(hint, value) and not Path(value).is_file():
            if options.takes_list(hint) and not options.takes_one(hint) and not appends:
                raise InputError(f"{place} is {value}: expected a list, as '[{value}]'")
            node = self._object(hint, value, place, None if appends or options.takes_list(hint) else before)
            if options.takes_list(hint):
                kept = dict(before.parts) if appends and before is not None else {}
                return Node(hint, is_list=True, parts={**kept, str(len(kept)): node})
            return node
        self._plain(hint, value, place)
        return Node(hint)

    def _group(self, made_by: type, value: Any, place: str, given: Given, before: Node | None) -> Node:
        node = before or Node(made_by, made_by)
        if isinstance(value, dict):
            for key, inner in value.items():
                self._set(node, options.of_class(made_by), [str(key)], Given((place, str(key)), inner, False), place)
        elif value is not None:
            example = next(iter(options.of_class(made_by)))
            raise InputError(f"{place} is {value}: expected options by name, as {place}.{example}")
        return node

    def _object(self, hint: Any, name: str, place: str, before: Node | None) -> Node:
        made_by = options.find_class(name, hint, place)
        kept = {} if before is None else {k: v for k, v in before.parts.items() if k in options.of_class(made_by)}
        return Node(hint, made_by, kept)

    @staticmethod
    def _takes(hint: Any, value: Any) -> bool:
        """Whether a hint that names classes takes this text as what it is: a path, a word, or a number."""
        plain = [one for one in options.alternatives(hint) if not options.kinds(one)]
        for one in plain:
            try:
                options.converted(one, value)
            except ValueError:
                continue
            return True
        return False

    @staticmethod
    def _plain(hint: Any, value: Any, place: str) -> None:
        if hint is None:
            return
        shown = "null" if value is None else " ".join(str(value).split())
        shown = shown if len(shown) < 60 else f"{shown[:57]}..."
        try:
            found = options.converted(hint, value)
        except ValueError:
            raise InputError(f"{place} is {shown}: expected {options.in_words(hint)}") from None
        refuse_faults(hint, found, place)

    # What is missing

    def missing(self) -> Iterator[tuple[str, Any, str]]:
        """The required options that are not given: the place of the class, the class, and the option's name."""
        for name, argument in self.known.items():
            if not options.has_default(argument) and name not in self.root.parts:
                yield "", None, name
        yield from self._missing(self.root, "")

    def _missing(self, node: Node, path: str) -> Iterator[tuple[str, Any, str]]:
        if node.made_by is not None and node.hint not in options.GROUPS.values():
            for name in options.required(node.made_by, node.hint, node.parts):
                yield path, node.made_by, name
        for name, child in node.parts.items():
            yield from self._missing(child, path if node.is_list else f"{path}.{name}".lstrip("."))

    def places(self, node: Node | None = None, path: str = "") -> Iterator[str]:
        """The full names of all options of the classes that are named so far."""
        node = self.root if node is None else node
        known = self.known if node is self.root else options.of_class(node.made_by) if node.made_by else {}
        for name in known:
            yield f"{path}{name}"
        for name, child in node.parts.items():
            yield from self.places(child, path if node.is_list else f"{path}{name}.")


def followed(args: list[str]) -> Follower:
    """What the options of a command name.

    Args:
        args: the verb and its options, after ``expand_configs``.

    Raises:
        InputError: one of the options is wrong.
    """
    follower = Follower(args[0])
    for given in assignments(args[1:]):
        follower.follow(given)
    return follower


def first_fault(args: list[str]) -> str | None:
    """What is wrong first in the arguments of a command; None if nothing is found.

    Args:
        args: the verb and its options, after ``expand_configs``.
    """
    try:
        follower = followed(args)
    except InputError as error:
        return str(error)
    for path, made_by, name in follower.missing():
        if name in SHAPE:  # the data give it
            continue
        if made_by is None:
            return f"distill {args[0]} needs --{name}: give --config FILE, as digits/dlb; distill configs lists them"
        return f"{path}: {made_by.__name__} needs the option {name}: give --{path}.{name}"
    return None


def left_to_data(args: list[str]) -> list[str]:
    """The required options of networks that only the data give, as ``model.network.num_classes``.

    Args:
        args: the verb and its options, after ``expand_configs``.
    """
    try:
        follower = followed(args)
    except InputError:
        return []
    return [f"{path}.{name}" for path, made_by, name in follower.missing() if made_by is not None and name in SHAPE]


def _some(known: Mapping[str, Argument]) -> str:
    names = list(known)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _kind(made: type) -> str:
    """The words for a class: "plain network" for PlainNetwork."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", made.__name__).lower()
