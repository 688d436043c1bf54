"""The verbs of the command, and what it answers without the slow import of torch: its help, and a wrong verb."""

import sys
import textwrap

from distill_lightning.errors import InputError, nearest
from distill_lightning.version import __version__

VERBS = {
    "fit": "Train a network, from the start or from a checkpoint, and test it once.",
    "validate": "Evaluate a run or a checkpoint on the validation split.",
    "test": "Evaluate a run or a checkpoint on the test split.",
    "predict": "Write the predictions of a run or a checkpoint, for pictures or the test split.",
    "bench": "Time a training step of a run, and compare it with a plain PyTorch loop.",
}
OTHER_VERBS = {
    "study": "Train the runs of a study that are not finished, in order, and make its tables.",
    "search": "Search for good values of options. The results of earlier trials decide what is tried next.",
    "members": "Train runs of one architecture side by side in one process, for a GPU that one of them leaves idle.",
    "compute": "Call a function of the package that computes results, and keep them as a run.",
    "list": "List runs: their state, their accuracy, and the options that differ.",
    "show": "Show one run: its state, metrics, options, what it was made from, and its next commands.",
    "report": "Make one HTML page from any run folders.",
    "doctor": "Say in words what the curves of runs show, how sure it is, and what to change.",
    "configs": "List, print or copy the configuration files that come with the program.",
    "data": "Show what the data look like, and draw a sheet of training pictures as the network sees them.",
    "schedule": "Draw the learning rate of a training before it begins.",
    "lr": "Find a learning rate by a short training in which it rises. Nothing is kept but the figure.",
    "export": "Write a trained network as a file for other programs: ONNX, torch.export or safetensors.",
    "compress": "Make a smaller network from a trained one: distil, remove channels, export, measure.",
    "channels": "Show what the channels of a layer see: their strongest pictures, regions, classes.",
    "inspect": "List what a file holds and which classes it asks for, without building anything.",
    "completion": "Print a script that lets your shell complete verbs, options and files.",
}
"""The verbs that have a parser of their own."""
COLUMNS = 80
"""The help is made for a terminal of this width."""


def welcome(verb: str = "fit") -> str:
    """The three most useful lines for somebody who has given no options."""
    lines = {
        "distill fit --config digits/dlb": "trains on the digits: seconds, no download",
        "distill configs": "lists the configurations that come along",
        f"distill {verb} --help": "explains the options",
    }
    return "\n".join(["Begin with:", *(f"  {command:<33}{words}" for command, words in lines.items())])


def overview() -> str:
    """The help of the command itself."""
    width = max(map(len, VERBS | OTHER_VERBS))
    lines = [
        textwrap.fill(f"  {verb:<{width}}  {words}", COLUMNS, subsequent_indent=" " * (width + 4))
        for verb, words in (VERBS | OTHER_VERBS).items()
    ]
    return "\n".join(
        [
            "usage: distill VERB [RUN] [--config FILE ...] [--option VALUE ...]",
            "       distill --version",
            "",
            *lines,
            "",
            "distill VERB --help explains the options of a verb.",
            "",
            welcome(),
        ]
    )


def answer(args: list[str]) -> int | None:
    """Answers what needs no parser: no verb, ``--help`` and ``--version``.

    Args:
        args: the words after ``distill``.

    Returns:
        The exit status; None if the first word is a verb.

    Raises:
        InputError: the first word is no verb.
    """
    first = args[0] if args else None
    if first in ("--version", "-V"):
        print(f"distill {__version__}")
        return 0
    if first in (None, "--help", "-h", "help"):
        print(overview())
        return 2 if first is None else 0
    known = VERBS | OTHER_VERBS
    if args == ["fit"]:
        print(f"distill: fit needs a --config FILE\n{welcome()}", file=sys.stderr)
        return 2
    if len(args) == 1 and first in VERBS:
        raise InputError(f"distill {first} needs a run or a checkpoint: distill {first} RUN, as in logs/digits/dlb")
    if first in known:
        return None
    if first.startswith("-"):
        raise InputError(f"distill {first}: a verb comes first, as distill fit {first}")
    raise InputError(f"there is no command {first}{nearest(first, known) or ': distill --help lists them'}")
