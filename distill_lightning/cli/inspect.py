"""``distill inspect FILE`` lists what a file holds and which classes it asks for.

Nothing that the file names is built, imported or opened.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distill_lightning.checkpoints import config_of, read, trained_on
from distill_lightning.cli import from_file
from distill_lightning.errors import InputError, LineParser
from distill_lightning.files import nested_values, printable, read_yaml
from distill_lightning.specs import Demand, count_numbers, demands
from distill_lightning.specs.check import short
from distill_lightning.tensor_files import is_old, read_tensors

SUMMARY = "List what a file holds and which classes it asks for, without building anything."
SHOWN = 5
"""The largest number of class names, sizes and faults that are listed."""
OF_A_RUN = ("config.yaml", "ticket.pt", "packed.pt", "checkpoints/*.ckpt", "rounds/*.ckpt")
"""The files that are inspected in a run's folder."""
ENDS = (".yaml", ".yml")
"""Suffixes of YAML files."""


def main(args: list[str]) -> int:
    """Runs the command.

    Args:
        args: the words after ``inspect``.

    Returns:
        The exit status: 0 if everything that the file asks for may be built, 2 if something is refused or asks for
            trust.

    Raises:
        InputError: the given file cannot be read, or the given folder holds no run.
    """
    parser = LineParser(prog="distill inspect", description=SUMMARY, allow_abbrev=False)
    parser.add_argument(
        "file", type=Path, help="a checkpoint, ticket, packed network, weights, YAML, or a run's folder"
    )
    parser.add_argument("--trust", metavar="NAME", action="append", help="show this class as trusted")
    path = parser.parse_args(args).file
    if not path.is_dir():
        return _show(path)
    found = [file for pattern in OF_A_RUN for file in sorted(path.glob(pattern))]
    if not found:
        raise InputError(f"{path} is no folder of a run: it has none of {', '.join(OF_A_RUN)}")
    statuses = []
    for file in found:
        try:
            statuses.append(_show(file))
        except InputError as error:
            print(f"{printable(file)}\n  refused: {printable(' '.join(str(error).split()))}")
            statuses.append(2)
    return max(statuses)


def _show(path: Path) -> int:
    """Prints what a file holds, and returns its exit status. May raise InputError."""
    lines, asked, faults = _of_yaml(path) if path.suffix in ENDS else _of_tensors(path)
    # printed only now, so that a file that fails gives one line and not half of a list
    print("\n".join([printable(path), *(f"  {printable(line)}" for line in lines)]))
    for demand in asked:
        trust = f"asks for trust: --trust {demand.class_path}" if demand.state == "unknown" else demand.state
        print(f"  asks for {printable(demand.class_path)}: {printable(trust)}")
    for fault in faults[:SHOWN]:
        print(f"  would be refused: {printable(fault)}")
    sys.stdout.flush()
    return 2 if faults or any(demand.state == "unknown" for demand in asked) else 0


def _of_yaml(path: Path) -> tuple[list[str], list[Demand], list[str]]:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    config = read_yaml(path)
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise InputError(f"{path} is no configuration: expected options by name")
    asked, faults = demands(from_file.flat(config, str(path)), from_file.kinds(), imports_trusted=False)
    return ["a configuration", *_numbers(config, str(path))], asked, faults


def _of_tensors(path: Path) -> tuple[list[str], list[Demand], list[str]]:
    content = read_tensors(path, "file")
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}: expected a checkpoint, a ticket or weights")
    old = "no format and no digest: whether it is damaged cannot be told"
    state = old if is_old(content) else f"format {content['format']}, its digest holds"
    asked: list[Demand] = []
    faults: list[str] = []
    lines = [f"{_kind(content)}; {state}"]
    if {"state_dict", "hyper_parameters", "method"} <= content.keys():
        content = read(path)
        lines += _data(content, str(path))
        built = {name: content["hyper_parameters"].get(name) for name in ("network", "activation")}
        asked, faults = demands(built, dict.fromkeys(built, nn.Module), imports_trusted=False)
        if content.get("config"):
            config = config_of(content, str(path))
            lines += _numbers(config, str(path))
            more, others = demands(from_file.flat(config, str(path)), from_file.kinds(), imports_trusted=False)
            asked = list({(demand.class_path, demand.state): demand for demand in [*more, *asked]}.values())
            faults = list(dict.fromkeys([*others, *faults]))
    return [*lines, *_tensors(content, str(path))], asked, faults


def _kind(content: Mapping[str, Any]) -> str:
    if {"state_dict", "hyper_parameters", "method"} <= content.keys():
        return "a checkpoint of this program"
    if isinstance(content.get("kind"), str):
        return f"a {short(content['kind'])[1:-1]}"
    return "weights" if all(isinstance(value, Tensor) for value in content.values()) else "tensors and plain data"


def _data(checkpoint: dict[str, Any], where: str) -> Iterator[str]:
    data = trained_on(checkpoint, where)
    if data is not None:
        names = data.info.class_names
        some = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        yield f"trained on {data.info.name}: {len(names)} classes ({some})"


def _tensors(content: Mapping[str, Any], where: str) -> Iterator[str]:
    shapes = [tuple(value.shape) for value in nested_values(content, where) if isinstance(value, Tensor)]
    if shapes:
        largest = max(shapes, key=lambda shape: (_product(shape), shape))
        of = "x".join(map(str, largest)) or "one number"
        yield f"{count_numbers(content, where):,} numbers in {len(shapes):,} tensors, the largest {of}"


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _numbers(config: dict[str, Any], where: str) -> Iterator[str]:
    """The largest integers in a configuration, with the names of their options."""

    def walk(value: Any, key: str) -> Iterator[tuple[int, str]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, one in inner:
            yield from walk(one, str(name) if isinstance(value, dict) else key)
        if type(value) is int:
            yield value, key

    for _ in nested_values(config, where):  # checks the size and the depth before the recursion
        pass
    largest = sorted(set(walk(config, "")), reverse=True)[:SHOWN]
    if largest:
        yield "largest numbers: " + ", ".join(f"{key} {value:,}" for value, key in largest)
