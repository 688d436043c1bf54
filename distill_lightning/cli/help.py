"""The help pages of the verbs that train or evaluate: of a verb, of a class, of the classes for an option.

Their texts are the docstrings of the classes, and the ranges and defaults are those of the type hints: nothing is
written twice.
"""

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import docstring_parser
from lightning.pytorch.callbacks import Callback
from torch import nn

from distill_lightning.cli import options
from distill_lightning.cli.from_file import CALLBACKS
from distill_lightning.cli.verbs import COLUMNS, VERBS
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError, nearest
from distill_lightning.runs import SHAPE
from distill_lightning.signatures import REQUIRED, Argument, signature

USED_MOST = (
    "max_epochs", "accelerator", "devices", "num_nodes", "precision", "callbacks", "logger", "accumulate_grad_batches",
    "gradient_clip_val", "check_val_every_n_epoch",
)  # fmt: skip
"""The options of Lightning's trainer that the help of a verb shows."""
OF_EVALUATION = ("accelerator", "devices", "precision")
WIDEST = 100
"""Columns."""
OF_EVERY_RUN = {"Bar", "Lines", "RunCheckpoint", "MetricsCSV", "TensorBoard"}
"""Callbacks and loggers that a run has anyway."""
SENTENCE = re.compile(r"\. (?=[A-Z])")
DEFAULT = re.compile(r"\s*\(default: [^)]*\)")
"""As the docstrings of torch end."""
ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")


def asked(args: list[str]) -> str | None:
    """The page that the arguments of a command ask for; None if they ask for none.

    Args:
        args: the verb and its options, such as ``fit --help`` or ``fit --model.help KD``.

    Raises:
        InputError: there is no such option or class.
    """
    for number, argument in enumerate(args):
        name, equals, value = argument.partition("=")
        if name in ("--help", "-h"):
            return of_verb(args[0])
        if name.startswith("--") and name.endswith(".help"):
            following = args[number + 1] if len(args) > number + 1 and not args[number + 1].startswith("-") else ""
            return of_option(args[0], name[2:].removesuffix(".help"), value if equals else following)
    return None


def of_verb(verb: str) -> str:
    """The help of a verb: the program's own options first, then the trainer's most used ones."""
    known = options.of_verb(verb)
    usage = {"predict": "RUN|FILE [PICTURES ...] "}.get(verb, "RUN|FILE ") if verb != "fit" else ""
    trainer = options.GROUPS["trainer"]
    used = [name for name in known if name in options.HELP and (verb == "fit" or name not in options.FOR_FIT)]
    shown = [_option(f"--{name}", known[name], options.HELP[name]) for name in used]
    parts = [
        _wrapped(f"usage: distill {verb} {usage}[--config FILE ...] [--OPTION VALUE ...]", "       "),
        _wrapped(VERBS[verb]),
        _section("Options:", shown),
    ]
    if verb != "fit":
        words = "--model and --data are those of the run, and all their options can be given, for example:"
        parts.append(_section(words, _options("data", ImageData, ("root", "pictures", "num_workers"), short=True)))
        parts.append(_section("--trainer, for example:", _options("trainer", trainer, OF_EVALUATION, short=True)))
        return "\n\n".join([*parts, f"Example: distill {verb} logs/digits/dlb/convnet-seed0"])
    parts += [
        _section(f"--model CLASS: the method ({_see(verb, 'model', 'KD')})", _classes(known["model"].hint)),
        _section(f"--data CLASS: the pictures ({_see(verb, 'data', 'Digits')})", _classes(known["data"].hint)),
        _section("--trainer: how to train", _options("trainer", trainer, USED_MOST, short=True)),
        _wrapped("All options of Lightning's trainer: distill fit --trainer.help"),
        _section("--checkpoint: when a checkpoint is saved", _options("checkpoint", options.GROUPS["checkpoint"])),
    ]
    return "\n\n".join([*parts, "Example: distill fit --config digits/dlb"])


def _see(verb: str, path: str, name: str) -> str:
    return f"its options: distill {verb} --{path}.help {name}"


def of_option(verb: str, path: str, name: str) -> str:
    """The help of an option that takes a class: of the class, or the classes that it takes.

    Args:
        verb: the verb of the command.
        path: the option, as ``model.network``.
        name: the class; "" lists the classes.

    Raises:
        InputError: there is no such option or class.
    """
    hint = _hint(verb, path)
    if path in options.GROUPS:
        return _page(verb, path, options.GROUPS[path], hint)
    if name:
        return _page(verb, path, options.find_class(name, hint, f"--{path}.help"), hint)
    kinds = options.kinds(hint)
    found = _classes(hint)
    takes = f"--{path} takes {'a list of these' if options.takes_list(hint) else 'one of these'}:"
    more = f"distill {verb} --{path}.help CLASS explains the options of a class."
    if nn.Module in kinds:
        more += " A dotted name, as torchvision.models.resnet18 or my_file.Net, works too."
    parts = [_section(takes, found)]
    if Callback in kinds:
        others = [made.__name__ for made in _known(hint) if made.__name__ in CALLBACKS]
        parts.append(_wrapped(f"Of Lightning, for example: {', '.join(sorted(others))}"))
    return "\n\n".join([*parts, _wrapped(more)])


def _hint(verb: str, path: str) -> Any:
    known: Mapping[str, Argument] = options.of_verb(verb)
    hint: Any = None
    done: list[str] = []
    for name in path.split("."):
        if name not in known:
            full = ".".join([*done, name])
            raise InputError(f"there is no option --{full}{nearest(name, known)}")
        done.append(name)
        hint = known[name].hint
        kinds = options.kinds(hint)
        known = options.of_class(kinds[0]) if kinds else {}
    if not options.kinds(hint):
        raise InputError(f"--{path} takes no class, so it has no help of its own: see distill {verb} --help")
    return hint


def _page(verb: str, path: str, made_by: Any, hint: Any) -> str:
    """The help of a class: its own options first, then in short those of its base classes."""
    later = signature(made_by).positional[: options.taken_by_position(hint)]
    known = {name: argument for name, argument in options.of_class(made_by).items() if name not in later}
    own = [name for name, argument in known.items() if argument.owner is made_by or not inspect.isclass(made_by)]
    own = own or list(known)
    shared = [name for name in known if name not in own]
    title = "" if path in options.GROUPS else f"--{path} {made_by.__name__}: "
    parts = [_wrapped(f"{title}{_summary(made_by)}")]
    if own:
        parts.append(_section("Its options:", _options(path, made_by, own)))
    if shared:
        parts.append(_section("Options that it shares with others:", _options(path, made_by, shared, short=True)))
    source = inspect.getmodule(made_by)
    if source is not None and source.__name__.startswith("distill_lightning."):
        parts.append(_wrapped(f"More: the top of {source.__name__.replace('.', '/')}.py, with equations and sources."))
    inner = [name for name in known if options.kinds(known[name].hint) and path not in options.GROUPS]
    if inner:
        parts.append(_wrapped(f"The classes for an option: distill {verb} --{path}.{inner[0]}.help"))
    return "\n\n".join(parts)


def _options(path: str, made_by: Any, names: Iterable[str] | None = None, short: bool = False) -> list[str]:
    known = options.of_class(made_by)
    return [_option(f"--{path}.{name}", known[name], _about(known[name], name, short)) for name in names or known]


def _option(name: str, argument: Argument, about: str) -> str:
    """The lines of an option: name and type, then its description with its default."""
    words = "" if name.removeprefix("--") in options.FLAGS else options.in_words(argument.hint)
    ending = "required" if argument.default is REQUIRED else _default(argument.default)
    if name.rpartition(".")[2] in SHAPE and name.count(".") > 1:
        ending = "" if "from the data" in about else "from the data"
    described = _capital(about.rstrip(".")) + (f" ({ending})" if ending else "")
    return f"{_wrapped(f'  {name}  {words}', '      ')}\n{_wrapped(f'      {described}', '      ')}"


def _default(default: Any) -> str:
    """The words for a default; none where it is none, which the description explains."""
    if default is None:
        return ""
    if callable(default):
        return f"default: {_summary(default).rstrip('.')}"
    return f"default: {str(default).lower() if isinstance(default, bool) else default}"


def _about(argument: Argument, name: str, short: bool = False) -> str:
    """The description of an argument, from the docstring of the class that declares it, or of a base class."""
    owner = argument.owner
    for made_by in inspect.getmro(owner) if inspect.isclass(owner) else [owner]:
        sources = [made_by, vars(made_by).get("__init__")] if inspect.isclass(made_by) else [made_by]
        for source in sources:
            for one in docstring_parser.parse(inspect.getdoc(source) or "").params:
                text = _plain(one.description or "")
                if one.arg_name == name and text and not text.startswith("see "):
                    text = text.partition("; see ")[0].partition(" Default: ")[0]
                    return SENTENCE.split(text)[0] if short else text
    return name.replace("_", " ")


def _summary(made_by: Any) -> str:
    return _plain(docstring_parser.parse(inspect.getdoc(made_by) or "").short_description or made_by.__name__)


def _plain(text: str) -> str:
    """A docstring's text without the marks of reStructuredText."""
    return " ".join(DEFAULT.sub("", ROLE.sub(r"\1", text)).replace("`", "").split())


def _capital(text: str) -> str:
    """The text with a capital, unless it begins with a symbol, as "w_soft, the weight of ..."."""
    return text if text.partition(" ")[0].endswith(",") else text[:1].upper() + text[1:]


def _known(hint: Any) -> list[Any]:
    found = [made for kind in options.kinds(hint) for several in options.known(kind).values() for made in several]
    return list(dict.fromkeys(found))


def classes_for(verb: str, path: str) -> list[Any]:
    """The classes for an option, as ``model.network``: those of this program that are given by hand, or else all."""
    return _offered(_hint(verb, path))


def names_for(hint: Any) -> list[str]:
    """The names of the classes for an option; empty for one that takes no class."""
    return [made.__name__ for made in _offered(hint)] if options.kinds(hint) else []


def _offered(hint: Any) -> list[Any]:
    named = [made for made in _known(hint) if made.__name__ not in OF_EVERY_RUN]
    ours = [made for made in named if made.__module__.startswith("distill_lightning.")]
    if nn.Module in options.kinds(hint):  # those that need nothing but what the data give: no layers of others
        ours = [made for made in ours if {*options.required(made, hint, {})} <= {*SHAPE, "network", "exit"}]
    return ours or named


def _classes(hint: Any) -> list[str]:
    """A line or two for each class that an option takes: its name, and the first sentence of its description."""
    return [_class(made) for made in _offered(hint)]


def _class(made_by: Any) -> str:
    return _wrapped(f"  {made_by.__name__:<14}  {SENTENCE.split(_summary(made_by))[0].rstrip('.')}", " " * 18)


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([_wrapped(title), *lines])


def _width() -> int:
    return min(WIDEST, shutil.get_terminal_size((COLUMNS, 24)).columns)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
