"""The options of the command: which exist at a place, which classes can be named there, and which values they take."""

import collections.abc
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import StrategyRegistry
from torch import Tensor, nn

from distill_lightning.callbacks.reestimate_batch_norm import Pictures
from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError, nearest
from distill_lightning.kinds import is_union
from distill_lightning.methods.base import Method
from distill_lightning.ranges import Count, Range, RunSeed
from distill_lightning.signatures import REQUIRED, Argument, signature
from distill_lightning.training.lean import LeanTrainer

MOST_WORDS = 90
"""Characters of a list of words."""
GROUPS: dict[str, type] = {"trainer": LeanTrainer, "checkpoint": RunCheckpoint}
"""Options whose parts are the arguments of one class."""
HELP = {
    "config": "A file of options, or the name of one that comes with the program. Later ones override earlier ones.",
    "seed_everything": "The seed of the run.",
    "log_dir": "The folder that runs are written to.",
    "name": "The name of the run; its network and seed by default.",
    "start_from": "What a new run takes its first weights from: a run's folder, a checkpoint, or a file of weights.",
    "start_optimizer": "Whether the state of the optimizer is taken along from the checkpoint in start_from.",
    "doctor": "Whether a line at the end of a fit says what the curves show, as `distill doctor` does.",
    "ckpt_path": "What to resume or to evaluate: a run's folder, a checkpoint, last, best. For fit also auto.",
    "trust": "A class or function of yours that a file may use, as my_package.Net. May be given several times.",
    "print_config": "Print the resolved options, and train nothing.",
    "reestimate_batch_norm": "The number of training pictures on which batch norm's statistics are estimated first.",
    "use_ema": "Take the weights that the callback EMA has averaged.",
    "turns": "How often each part is timed.",
    "steps": "The number of steps in each turn.",
    "stages": "Time the stages of the data path instead of a step: decode, transfer, augment, train.",
}
PLAIN: dict[str, tuple[Any, Any]] = {
    "config": (str | None, None),
    "seed_everything": (RunSeed | bool, 0),
    "log_dir": (str, "logs"),
    "name": (str | None, None),
    "start_from": (str | dict[str, str | None] | None, None),  # config.yaml also says which weights they were
    "start_optimizer": (bool, False),
    "doctor": (bool, True),
    "ckpt_path": (str | None, None),
    "trust": (str | None, None),
    "print_config": (str | None, None),
    "weights_only": (bool | None, None),
}
CHOICES: dict[str, Callable[[], list[str]]] = {
    "trainer.accelerator": lambda: ["auto", "gpu", *AcceleratorRegistry.available_accelerators()],
    "trainer.strategy": lambda: ["auto", *StrategyRegistry.available_strategies()],
    "trainer.profiler": lambda: ["simple", "advanced", "pytorch", "xla"],
}
"""Options of Lightning's trainer that take any text by their type hint, but few words in fact."""
FLAGS = ("print_config", "use_ema")
"""Options without a value."""
USE_EMA: dict[str, tuple[Any, Any]] = {"use_ema": (bool, None)}
OF_EVALUATION = USE_EMA | {"reestimate_batch_norm": (Pictures | None, None)}
OF_ONE_VERB: dict[str, dict[str, tuple[Any, Any]]] = {
    "validate": OF_EVALUATION,
    "test": OF_EVALUATION,
    "predict": USE_EMA,
    "bench": {"turns": (Count, 20), "steps": (Count, 20), "stages": (bool, False)},
}
"""Options that not every verb has."""
FOR_FIT = ("name", "start_from", "start_optimizer", "doctor")
"""Options that every verb takes, since a run's config.yaml has them, and that only fit uses."""


def of_verb(verb: str) -> dict[str, Argument]:
    """The options of a verb, by name, without their parts."""
    return {
        **plain_options(verb),
        **{name: Argument(made_by, None, None) for name, made_by in GROUPS.items()},
        "model": Argument(Method, REQUIRED, None),
        "data": Argument(ImageData, REQUIRED, None),
    }


def plain_options(verb: str) -> dict[str, Argument]:
    """The options of a verb that belong to none of its parts, by name."""
    plain = PLAIN | OF_ONE_VERB.get(verb, {})
    return {name: Argument(hint, default, None) for name, (hint, default) in plain.items()}


def of_class(made_by: Any) -> dict[str, Argument]:
    """The options of a class or function, by name."""
    return dict(signature(made_by).arguments)


# Classes


def kinds(hint: Any) -> list[type]:
    """The classes in a type hint whose subclasses can be named; for a callable, those that it returns."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is collections.abc.Callable:
        return kinds(inner[1]) if len(inner) == 2 else []
    if origin is typing.Literal:
        return []
    if origin is typing.Annotated:
        return kinds(inner[0])
    if origin is not None or isinstance(hint, types.UnionType):
        return [kind for one in inner for kind in kinds(one)]
    named = inspect.isclass(hint) and hint not in (Tensor, types.NoneType, Any) and not _is_builtin(hint)
    return [hint] if named else []


def _is_builtin(hint: type) -> bool:
    return hint.__module__ in ("builtins", "datetime", "pathlib", "os", "typing", "collections.abc")


def takes_list(hint: Any) -> bool:
    """Whether a type hint takes a list of the classes that it names."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if is_union(hint):
        return any(takes_list(one) for one in inner)
    return inspect.isclass(origin) and origin is not tuple and issubclass(origin, collections.abc.Iterable)


def takes_one(hint: Any) -> bool:
    """Whether a type hint takes a single object of the classes that it names."""
    if is_union(hint):
        return any(takes_one(one) for one in typing.get_args(hint))
    return bool(kinds(hint)) and not takes_list(hint)


def taken_by_position(hint: Any) -> int:
    """The number of arguments that a callable gets later, such as the parameters of an optimizer."""
    found = [one for one in [hint, *typing.get_args(hint)] if typing.get_origin(one) is collections.abc.Callable]
    return len(typing.get_args(found[0])[0]) if found and isinstance(typing.get_args(found[0])[0], list) else 0


def subclasses(base: type) -> Iterator[type]:
    """All subclasses of a class that are known so far."""
    found: type
    for found in type.__subclasses__(base):
        yield found
        yield from subclasses(found)


def known(kind: type) -> dict[str, list[type]]:
    """The classes of a kind that can be named, by their short names: those of this program, Lightning and torch."""
    found: dict[str, list[type]] = {}
    made: type
    for made in dict.fromkeys([kind, *subclasses(kind)]):
        ours = made.__module__.startswith("distill_lightning.")
        inner = kind is nn.Module and (not ours or not made.__module__.startswith("distill_lightning.models."))
        public = not made.__name__.startswith("_") and not inspect.isabstract(made) and made is not kind
        if public and not inner and _is_importable(made):
            found.setdefault(made.__name__, []).append(made)
    return found


def _is_importable(made: type) -> bool:
    """Whether the class is what its module has under its name: not one that was made within a function."""
    return getattr(sys.modules.get(made.__module__), made.__name__, None) is made


def find_class(name: str, hint: Any, where: str) -> Any:
    """The class or function of a name, as the parser finds it.

    Args:
        name: a short name, as KD, or a dotted one.
        hint: the type hint of the option.
        where: the option, for the error.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    wanted = kinds(hint)
    if "." not in name:
        by_name = {one.__name__: one for kind in wanted for one in [kind, *subclasses(kind)]}
        if name in by_name:
            return _complete(by_name[name], where)
        names = [one for kind in wanted for one in known(kind)]
        what = _a(wanted[0].__name__.lower()) if len(wanted) == 1 and wanted[0] is not nn.Module else "a class"
        raise InputError(f"{where} is {name}: there is no such class{nearest(name, names) or f'; give {what}'}")
    module, _, last = name.rpartition(".")
    try:
        holder: Any = importlib.import_module(module)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        near = f"; did you mean {last}?" if any(last in known(kind) for kind in wanted) else ""
        reason = f"there is no module {missing}" if missing else f"{module} cannot be imported: {error}"
        raise InputError(f"{where} is {name}: {reason}{near}") from error
    if not hasattr(holder, last):
        raise InputError(f"{where} is {name}: {module} has no {last}{nearest(last, _public(holder))}")
    found = getattr(holder, last)
    if not callable(found):
        raise InputError(f"{where} is {name}: it is no class, but {_a(type(found).__name__)}")
    if inspect.isclass(found) and wanted and not issubclass(found, tuple(wanted)):
        raise InputError(f"{where} is {name}: it is no {' or '.join(kind.__name__ for kind in wanted)}")
    returns = None if inspect.isclass(found) else typing.get_type_hints(found).get("return")
    if not inspect.isclass(found) and wanted and returns is None:
        raise InputError(f"{where} is {name}: write in its code what it returns, as -> {wanted[0].__name__}")
    return _complete(found, where)


def _complete(found: Any, where: str) -> Any:
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(f"{where} is {found.__name__}, which cannot be used itself: it lacks {lacking}")
    return found


def _public(holder: Any) -> list[str]:
    return [name for name in dir(holder) if not name.startswith("_")]


def _a(word: str) -> str:
    return f"{'an' if word[:1] in 'aeio' else 'a'} {word}"


# Values


def in_words(hint: Any) -> str:
    """What an option takes, in a few words: "int, 1 or more"."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return in_words(inner[0]) if inner[1] == Range() else f"{in_words(inner[0])}, {inner[1]}"
    if origin is typing.Literal:
        return f"one of {_listed(map(str, inner))}"
    if is_union(hint):
        every = [one for one in alternatives(hint) if one is not Tensor]
        words = [
            str(word) for one in every if typing.get_origin(one) is typing.Literal for word in typing.get_args(one)
        ]
        others = [in_words(one) for one in every if typing.get_origin(one) is not typing.Literal]
        several = [word for word in others if f"list of {word}" not in others]  # a list may have one item
        return " or ".join(dict.fromkeys([*([f"one of {_listed(words)}"] if words else []), *several]))
    if origin in (list, tuple, set, collections.abc.Sequence, collections.abc.Iterable):
        return f"list of {in_words(inner[0])}" if inner else "list"
    if origin in (dict, collections.abc.Mapping):
        return f"{{name: {in_words(inner[1])}}}"
    if origin is collections.abc.Callable:
        return in_words(inner[1]) if len(inner) == 2 else "class"
    if hint is bool:
        return "true or false"
    if hint is Any or not inspect.isclass(hint):
        return "value"
    if hint is nn.Module:
        return "network"
    if hint in (Method, ImageData, Callback, torch.optim.Optimizer) or kinds(hint):
        return hint.__name__
    return {"PathLike": "path", "Path": "path"}.get(hint.__name__, hint.__name__)


def _listed(words: Iterable[str]) -> str:
    text = ", ".join(dict.fromkeys(words))
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS].rpartition(', ')[0]}, ..."


def converted(hint: Any, value: Any) -> Any:
    """The value of an option as its type hint takes it: the parser's own answer for this value alone.

    Args:
        hint: the type hint.
        value: a text of the command line, or a value of a YAML.

    Raises:
        ValueError: the hint does not take the value.
    """
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
        if isinstance(value, str):
            return parser.parse_args([f"--value={value}"])["value"]
        return parser.parse_object({"value": value})["value"]
    except ArgumentError as error:
        raise ValueError(in_words(hint)) from error


def has_default(argument: Argument) -> bool:
    """Whether an option can be left out."""
    return argument.default is not REQUIRED


def required(made_by: Any, hint: Any, given: Mapping[str, Any]) -> list[str]:
    """The options of a class that are missing.

    Args:
        made_by: the class or function.
        hint: the type hint of the option that names it.
        given: the options that are there, by name.
    """
    later = signature(made_by).positional[: taken_by_position(hint)]
    needed = [name for name, argument in of_class(made_by).items() if not has_default(argument)]
    return [name for name in needed if name not in given and name not in later]


def alternatives(hint: Any) -> list[Any]:
    """The types of a union; the hint itself if it is none. None is left out."""
    if is_union(hint):
        return [one for inner in typing.get_args(hint) for one in alternatives(inner) if one is not types.NoneType]
    return [hint]


def element(hint: Any) -> Any:
    """The type hint of the items of a list, in a hint that takes a list."""
    lists = [one for one in alternatives(hint) if takes_list(one)]
    return typing.get_args(lists[0])[0] if lists and typing.get_args(lists[0]) else Any


def choices(hint: Any) -> list[str]:
    """The words that an option takes, if these are all that it takes; otherwise none."""
    words: list[str] = []
    for one in alternatives(hint):
        if one is bool:
            words += ["true", "false"]
        elif typing.get_origin(one) is typing.Literal:
            words += map(str, typing.get_args(one))
        else:
            return []
    return list(dict.fromkeys(words))
