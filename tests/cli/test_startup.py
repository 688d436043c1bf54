"""What the command imports before it answers: modules are counted, not seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import CONFIGS

SLOW = {"torch", "torchvision", "lightning", "torchmetrics", "numpy", "scipy", "sklearn", "jsonargparse", "PIL", "rich"}
SLOW |= {"tensorboard", "matplotlib", "pandas", "dask", "bokeh", "onnx"}
LISTING = """
import contextlib, io, json, os, sys
before = set()
if {with_lightning!r}:
    import lightning.pytorch.cli
    before = set(sys.modules)
from distill_lightning.__main__ import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    try:
        status = main({args!r})
    except SystemExit as leaving:
        status = leaving.code or 0
print(json.dumps([status, sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})]))
"""


def imported(args: list[str], with_lightning: bool = False) -> tuple[int, set[str]]:
    """The exit status of a command, and the packages that it imports; without those that Lightning imports."""
    code = LISTING.format(args=args, with_lightning=with_lightning)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, names = json.loads(done.stdout)
    return status, set(names)


@pytest.mark.parametrize(
    ("args", "status"),
    [
        ([], 2),
        (["--version"], 0),
        (["--help"], 0),
        (["fti"], 2),
        (["fit"], 2),
        (["test"], 2),
        (["configs"], 0),
        (["configs", "digits/dlb"], 0),
        (["report", "--help"], 0),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else str(given),
)
def test_light_answers_import_nothing_slow(args, status):
    left, names = imported(args)
    assert left == status
    of_report = {"numpy"} if args[:1] == ["report"] else set()  # the masks of tickets
    assert names & SLOW <= of_report


BESIDE_LIGHTNING = {"distill_lightning", "jsonargparse", "docstring_parser", "typeshed_client", "torchvision", "shtab"}
"""What may be imported for the options of a fit, beside what Lightning imports: the parser, and data sets' classes."""


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["fit", "--help"], 0),
        (["fit", "--model.help", "KD"], 0),
        (["fit", "--config", str(CONFIGS / "digits" / "baseline.yaml"), "--trainer.max_epoch", "3"], 2),
    ],
    ids=["help", "help of a class", "a wrong option"],
)
def test_help_and_errors_wait_for_lightning_alone(args, status):
    left, names = imported(args, with_lightning=True)
    assert left == status
    third_party = {name for name in names if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert third_party & SLOW <= BESIDE_LIGHTNING, third_party
    assert not Path("logs").exists()
