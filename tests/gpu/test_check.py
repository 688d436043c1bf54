"""The script of the GPU checks can be run, and writes what it found."""

import importlib.util
import json
from pathlib import Path

import pytest


def test_a_rehearsal():
    spec = importlib.util.spec_from_file_location("gpu_check", Path(__file__).with_name("check.py"))
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    assert check.main(["out.json", "--device", "cpu", "--only", "environment", "forms"]) == 0
    found = json.loads(Path("out.json").read_text())
    assert found.keys() == {"environment", "forms"} and found["environment"]["torch"]
    assert found["forms"]["ok"] and found["forms"]["full"]["loss"] == pytest.approx(found["forms"]["fused"]["loss"])
    assert abs(found["forms"]["bf16"]["loss"] - found["forms"]["full"]["loss"]) < 0.05
    assert check.main(["out.json", "--device", "cpu", "--minutes", "0", "--only", "resume"]) == 0
    assert json.loads(Path("out.json").read_text())["resume"]["left_out"]
