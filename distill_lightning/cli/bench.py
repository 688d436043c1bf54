"""``distill bench``: measures the time of a training step."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from distill_lightning.bench import time_steps
from distill_lightning.bench_stages import time_stages
from distill_lightning.errors import InputError
from distill_lightning.training.parts import Parts, attached_for_now


def bench(parts: Parts, turns: int, steps: int, stages: bool = False) -> None:
    """Prints the time of a training step, or of the stages of the data path.

    The run writes to a temporary folder, which is removed afterwards.

    Args:
        parts: the parts of the run.
        turns: how often each part is timed, 2 or more.
        steps: the number of steps in each turn, 1 or more.
        stages: whether the stages of the data path are timed instead of a step: decode, transfer, augment, train.

    Raises:
        InputError: ``turns`` or ``steps`` is too small, or the method has nothing to train.
    """
    if turns < 2 or steps < 1:
        raise InputError(f"turns is {turns} and steps is {steps}: expected 2 turns or more, of 1 step or more each")
    if not parts.method.trains:
        raise InputError(f"{type(parts.method).__name__} has nothing to train: give a method that trains")
    with attached_for_now(parts, parts.config):
        if stages:
            _print_stages(time_stages(parts.trainer, parts.method, parts.data, turns + steps))
            return
        result = time_steps(parts.trainer, parts.method, parts.data, turns, steps)
    if not parts.trainer.is_global_zero:
        return
    table = Table("", "ms a step", "of the bare loop (quartiles)")
    table.add_row("bare loop", f"{1000 * result['bare_s']:.3f}", "1")
    rows = [("data", "data path alone", "bare"), ("run", "run as trained", "bare")]
    if result["fresh"] < result["rows"]:
        table.add_row(f"bare loop on the {result['fresh']} new of {result['rows']}", f"{1000 * result['fresh_s']:.3f}")
        rows.append(("run", "the run, of the loop on the new ones", "fresh"))
    for name, words, other in rows:
        low, middle, high = result[f"{name}_to_{other}"]
        table.add_row(words, f"{1000 * result[f'{name}_s']:.3f}", f"{middle:.3f} ({low:.3f} to {high:.3f})")
    Console().print(table)
    sizes = {"memory at its highest": result["peak_bytes"], "checkpoint": result["checkpoint_bytes"]}
    print(", ".join(f"{words} {size / 1e6:.1f} MB" for words, size in sizes.items() if size is not None))
    if compiled := result.get("compiled"):
        words = "graphs compiled: {graphs}, of them {again} after the first turns; broken {breaks} times"
        print(words.format(**compiled))
    print(json.dumps(result))


def _print_stages(result: dict[str, Any]) -> None:
    rows = result["rows"]
    table = Table("", "ms a batch", "pictures/s")
    words = {
        "decode": f"decode, {result['workers']} workers" if result["workers"] else "decode",
        "transfer": "transfer",
        "augment": "augment, mix, normalise",
        "train": "forward, backward, step",
        "loader": "the whole data path",
    }
    for name, label in words.items():
        seconds = result[f"{name}_s"]
        table.add_row(label, f"{1000 * seconds:.2f}", f"{rows / seconds:,.0f}" if seconds else "")
    Console().print(table)
    line = f"the limit is: {words[result['limit']]}"
    if result["workers_needed"] is not None:
        line += f"; decoding keeps up with {result['workers_needed']} workers of this speed (data.num_workers)"
    print(line)
    print(json.dumps(result))
