"""``distill completion bash``: prints a script that completes verbs, options, classes and files in a shell.

The script is static: no Python starts when the tab key is pressed. It is made by shtab from a parser that has the same
words as the command.
"""

import argparse
from collections.abc import Iterable
from typing import Any

import shtab

from distill_lightning.cli import help, options
from distill_lightning.cli.verbs import OTHER_VERBS, VERBS
from distill_lightning.config_files import shipped_names
from distill_lightning.errors import LineParser
from distill_lightning.signatures import Argument

SHELLS = ("bash", "zsh", "tcsh")
INSTALL = """Install it with: distill completion bash > ~/.distill-completion && echo 'source ~/.distill-completion' >>
~/.bashrc. Do it again after an update of the program."""
CONFIGS = {"bash": "_distill_configs", "zsh": "_files", "tcsh": "f"}
PATHS = {"root", "pictures", "ckpt_path", "log_dir", "folder", "cache", "weights", "ticket", "teacher"} | {"generalist"}
"""Names of options that take a file or a folder."""


def main(args: list[str]) -> int:
    """The command. Returns its exit status.

    Raises:
        InputError: there is no such shell.
    """
    parser = LineParser(prog="distill completion", description=OTHER_VERBS["completion"], epilog=INSTALL)
    parser.add_argument("shell", choices=SHELLS, nargs="?", default="bash", help="your shell (default: bash)")
    print(script(parser.parse_args(args).shell))
    return 0


def script(shell: str) -> str:
    """The script for a shell."""
    names = " ".join(shipped_names())
    configs = f'_distill_configs() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}'
    text: str = shtab.complete(_parser(), shell, preamble=configs if shell == "bash" else "")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="distill")
    parser.add_argument("--version", action="store_true")
    verbs = parser.add_subparsers()
    for verb in VERBS:
        of_verb = verbs.add_parser(verb, help=VERBS[verb])
        added: set[str] = set()
        for name, argument in options.of_verb(verb).items():
            _add(of_verb, f"--{name}", argument, added)
        for place, made_by in options.GROUPS.items():
            _add_class(of_verb, place, [made_by], added)
        for place in ("model", "data", "model.network", "model.optimizer", "model.schedule", "data.mix"):
            _add_class(of_verb, place, help.classes_for(verb, place), added)
        _add_class(of_verb, "trainer.callbacks", help.classes_for(verb, "trainer.callbacks"), added)
        if verb != "fit":
            _files(of_verb.add_argument("words", nargs="*"))
    for verb, words in OTHER_VERBS.items():
        shells = SHELLS if verb == "completion" else None
        action = verbs.add_parser(verb, help=words).add_argument("words", nargs="*", choices=shells)
        if shells is None:
            _files(action, CONFIGS if verb in ("configs", "study", "search", "schedule", "lr") else None)
    return parser


def _add_class(parser: argparse.ArgumentParser, place: str, classes: Iterable[Any], added: set[str]) -> None:
    """Adds the options of all classes that an option takes."""
    _add_option(parser, f"--{place}.help", [made.__name__ for made in classes], added)
    for made_by in classes:
        for name, argument in options.of_class(made_by).items():
            _add(parser, f"--{place}.{name}", argument, added)


def _add(parser: argparse.ArgumentParser, option: str, argument: Argument, added: set[str]) -> None:
    action = _add_option(parser, option, options.choices(argument.hint) or help.names_for(argument.hint), added)
    if action is not None and not action.choices and option.rpartition(".")[2].lstrip("-") in PATHS:
        _files(action)
    if action is not None and option == "--config":
        _files(action, CONFIGS)


def _add_option(
    parser: argparse.ArgumentParser, option: str, choices: list[str], added: set[str]
) -> argparse.Action | None:
    if option in added:
        return None
    added.add(option)
    names = [option, "-c"] if option == "--config" else [option]
    return parser.add_argument(*names, choices=choices or None)


def _files(action: argparse.Action, how: dict[str, str] | None = None) -> None:
    action.complete = how or shtab.FILE  # type: ignore[attr-defined]  # shtab reads it there
