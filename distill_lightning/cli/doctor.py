"""``distill doctor RUN...``: says in words what the curves of runs show, without importing torch."""

import dataclasses
import functools
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from distill_lightning.cli.verbs import COLUMNS, OTHER_VERBS
from distill_lightning.doctor import Curves, Diagnosis, examine, picture
from distill_lightning.errors import InputError, LineParser
from distill_lightning.files import atomic_write, printable


def main(args: list[str]) -> int:
    """Runs the command, and returns its exit status.

    Args:
        args: the words after ``doctor``.

    Raises:
        InputError: there is no such file, or an option is wrong.
    """
    parser = LineParser(
        prog="distill doctor",
        description=OTHER_VERBS["doctor"],
        epilog="Several runs that differ in one option are compared first. Curves of other programs: a CSV of step, "
        "tag and value, a metrics.csv of Lightning's CSVLogger, or TensorBoard's event files.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", type=Path, nargs="+", help="runs' folders, folders of these, or files with curves")
    parser.add_argument("--num_classes", type=int, metavar="K", help="the number of classes, if no config.yaml says it")
    parser.add_argument("--batch_size", type=int, metavar="B", help="pictures of a step, if no config.yaml says it")
    parser.add_argument("--json", action="store_true", help="a list of {file, verdict, evidence, advice, ...}")
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="draw each run's curve, as SVG, into this folder"
    )
    given = parser.parse_args(args)
    for name, least in (("num_classes", 2), ("batch_size", 1)):
        if (value := getattr(given, name)) is not None and value < least:
            raise InputError(f"--{name} is {value}: expected {least} or more")
    examined = examine(given.runs, given.num_classes, given.batch_size)
    found = [diagnosis for _, diagnosis in examined]
    if given.pictures is not None:
        _draw(given.pictures, examined)
    if given.json:
        print(json.dumps([dataclasses.asdict(diagnosis) for diagnosis in found], indent=2, allow_nan=False))
    else:
        print("\n\n".join(_paragraphs(found)))
    return 0


def _draw(folder: Path, examined: Sequence[tuple[Curves, Diagnosis]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (curves, diagnosis) in enumerate(examined, start=1):
        svg = picture(curves, diagnosis).svg().encode()
        name = f"{number:03}-{Path(diagnosis.file).stem}-{diagnosis.verdict}.svg"
        atomic_write(folder / name, functools.partial(_write, svg))


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _paragraphs(found: Sequence[Diagnosis]) -> list[str]:
    """Each diagnosis as text: one line for a file that cannot be judged, else what is seen and what to try."""
    texts = []
    for one in found:
        head = f"{printable(one.file)}: {one.words}"
        if one.verdict == "unsure":
            texts.append(f"{head}. {printable(one.evidence)}")
            continue
        steps = [f"try: {one.advice.replace('; ', ', or ')}"] if one.advice else []
        lines = [head, *(_wrapped(text) for text in [one.evidence, *steps])]
        texts.append("\n".join(lines))
    return texts


def _wrapped(text: str) -> str:
    return textwrap.fill(
        printable(text),
        COLUMNS,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
