"""The words of a command that are no options: ``distill predict RUN PICTURES``, ``distill test RUN``.

They are turned into options before the parser runs. The first one is the run or checkpoint, unless ``--ckpt_path`` is
given; those of ``predict`` that follow are pictures.
"""

import json
from pathlib import Path

from distill_lightning.cli.options import FLAGS
from distill_lightning.config_files import find
from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method
from distill_lightning.runs import RunConfig
from distill_lightning.specs import lookup

WITHOUT_VALUE = ("--help", "-h", *(f"--{flag}" for flag in FLAGS))
LAST = Path("checkpoints", "last.ckpt")


def as_options(args: list[str]) -> list[str]:
    """The arguments of a command without words that are no options.

    Args:
        args: the verb, options with their values, and other words.

    Returns:
        The verb, and options with their values. A run's folder stands as its last checkpoint.

    Raises:
        InputError: there are more words than the verb takes, or a folder is no run's.
    """
    verb, options, words = args[0], list[str](), list[str]()
    left = args[1:]
    while left:
        argument = left.pop(0)
        if not argument.startswith("-"):
            words.append(argument)
            continue
        options.append(argument)
        is_whole = "=" in argument or argument in WITHOUT_VALUE
        asks_without_class = argument.endswith(".help") and (not left or left[0].startswith("-"))
        if left and not is_whole and not asks_without_class:
            options.append(left.pop(0))
    given = [number for number, option in enumerate(options) if option.partition("=")[0] == "--ckpt_path"]
    for number in given:
        name, equals, value = options[number].partition("=")
        if equals:
            options[number] = f"{name}={checkpoint_of(value)}"
        elif number + 1 < len(options):
            options[number + 1] = checkpoint_of(options[number + 1])
    if words and not given:
        if verb == "fit":
            what = f"give --config {words[0]}" if find(words[0]) else "options begin with --, as --config FILE"
            raise InputError(f"{words[0]} is no option: {what}")
        options = ["--ckpt_path", checkpoint_of(words.pop(0)), *options]
    if words and verb != "predict":
        raise InputError(f"{words[0]} is one word too many: distill {verb} takes one run or checkpoint, and options")
    if len(words) > 1:
        options += ["--data.pictures", json.dumps(words)]
    elif words:
        options += ["--data.pictures", words[0]]
    return [verb, *options]


def checkpoint_of(given: str) -> str:
    """The checkpoint that a run's folder stands for, its last one; anything else as it is.

    Raises:
        InputError: it is the folder of no run, or the run has no checkpoint yet.
    """
    path = Path(given)
    if given in ("last", "best", "auto") or not path.is_dir():
        return given
    if (path / LAST).is_file():
        print(f"checkpoint: {path / LAST}", flush=True)
        return str(path / LAST)
    if (config := path / "config.yaml").is_file():
        method = lookup(str(RunConfig.read(path).options["model"].get("class_path")), Method)
        if method is not None and not method.leaves_checkpoint:
            raise InputError(f"{path} is a run of {method.__name__}, which has no checkpoint: give --config {config}")
        raise InputError(f"{path} has no {LAST}: the run has saved none yet, or it was removed")
    raise InputError(f"{path} is no run's folder: expected a folder with {LAST}, or a checkpoint")
