"""The process of a run: its share of the GPUs, and its error message."""

import dataclasses
import subprocess
from pathlib import Path

import pytest

from distill_lightning.studies.engine import LocalEngine, StartedRun
from distill_lightning.studies.plan import PlannedRun, requested_gpus

RUN = PlannedRun("a", {}, ("fit",), "0" * 16, Path("logs/d/m/a-00000000"), True, 1, ())


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (None, "0"),
        (1, "0"),
        ("2", "0,1"),
        (2, "0,1"),
        (-1, "0,1,2,3"),
        ("-1", "0,1,2,3"),
        ([0, 3], None),
        ("auto", "0"),
    ],
)
def test_a_run_is_given_the_gpus_that_it_asks_for(devices, expected, monkeypatch):
    """However that is written; where it names them, it is left to it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    given = {}

    class Started:
        pid = 1

        def __init__(self, command, env, **_):
            given.update(env)

    monkeypatch.setattr("distill_lightning.studies.engine.subprocess.Popen", Started)
    run = dataclasses.replace(RUN, requested_gpus=requested_gpus(devices))
    LocalEngine(Path("out"), 1, ("0", "1", "2", "3")).start(run, 0)
    assert given.get("CUDA_VISIBLE_DEVICES") == expected


def test_an_old_error_is_not_given_as_the_cause(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("distill: old error\n" + "x" * 5 + "\nmore\n")
    assert StartedRun(subprocess.CompletedProcess([], -9), log, 20).last_words() == "killed by signal 9"
    assert StartedRun(subprocess.CompletedProcess([], 1), log, 0).last_words() == "distill: old error"
