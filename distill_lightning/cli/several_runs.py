"""What ``distill study`` and ``distill search`` have in common: the arguments of a command that trains several runs."""

import argparse
from pathlib import Path

from distill_lightning.config_files import find, find_shipped
from distill_lightning.errors import InputError, LineParser


def parser_of(verb: str, folder: str, example: str, description: str) -> LineParser:
    """The parser of a command for a file of runs, without the options that only this command has.

    Args:
        verb: the command, and the name of its first argument.
        folder: the folder of the shipped files.
        example: one of them.
        description: what the command does.
    """
    parser = LineParser(
        prog=f"distill {verb}",
        description=description,
        epilog="Any other option is given to every run, for example --data.root DIR or --trainer.accelerator gpu.",
        allow_abbrev=False,
    )
    what = f"the YAML file, or the name of a shipped {verb}, for example {example}"
    parser.add_argument("file", type=Path, metavar=verb, help=what)
    parser.add_argument("--jobs", type=int, default=1, help="how many runs to train at once; they share cores and GPUs")
    parser.add_argument("--log_dir", default="logs", help="the folder that runs are written to")
    parser.set_defaults(folder=folder)
    return parser


def parsed(parser: LineParser, args: list[str]) -> tuple[argparse.Namespace, list[str], Path]:
    """The arguments, those for every run, and the file.

    Raises:
        InputError: an argument is wrong.
    """
    given, for_runs = parser.parse_known_args(args)
    if given.jobs < 1:
        raise InputError(f"--jobs is {given.jobs}: it must be 1 or more")
    name = str(given.file)
    return given, for_runs, find(name) or find_shipped(f"{given.folder}/{name}") or given.file
