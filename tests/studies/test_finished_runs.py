"""Finished runs on disk, also those from other people."""

import os
from pathlib import Path

import pytest

from distill_lightning.studies.finished import finished_runs, training_time_s

WRONG = {
    "a list": "[1]",
    "a text": '"config_digest"',
    "torn": '{"config_digest": "ab',
    "a number as digest": '{"config_digest": 5}',
    "no digest": "{}",
    "deep": "[" * 100_000,
    "a number of too many digits": '{"config_digest": ' + "9" * 5000 + "}",
    "no UTF-8": b"\xff\xfe",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_summary_is_passed_over(wrong):
    for name, content in (("wrong", WRONG[wrong]), ("right", '{"config_digest": "ab", "wall_time_s": 7}')):
        folder = Path("logs/d/m") / name
        folder.mkdir(parents=True)
        (folder / "summary.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert finished_runs(Path("logs")) == {"d/ab": Path("logs/d/m/right")}
    assert training_time_s(Path("logs/d/m/wrong")) == 0 and training_time_s(Path("logs/d/m/right")) == 7


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for():
    folder = Path("logs/d/m/pipe")
    folder.mkdir(parents=True)
    os.mkfifo(folder / "summary.json")
    assert finished_runs(Path("logs")) == {}


@pytest.mark.parametrize("given", ['"x"', "null", "-1", "NaN", "Infinity", "1e300", "true"])
def test_a_time_that_cannot_be_is_0(given):
    Path("summary.json").write_text('{"wall_time_s": ' + given + "}")
    assert training_time_s(Path()) == 0
