"""The script of the GPU checks can be run, writes what it found, and a page is made of it."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_rehearsal():
    check, page = script("check"), script("page")
    assert check.main(["out.json", "--device", "cpu", "--only", "environment", "forms", "jpeg"]) == 0
    found = json.loads(Path("out.json").read_text())
    assert found.keys() == {"environment", "forms", "jpeg"} and found["environment"]["torch"]
    assert found["forms"]["ok"] and found["forms"]["full"]["loss"] == pytest.approx(found["forms"]["fused"]["loss"])
    assert abs(found["forms"]["bf16"]["loss"] - found["forms"]["full"]["loss"]) < 0.05
    made = page.page(found)
    assert "| `forms` |" in made and made.count("| right |") == 3 and made.count("| not run |") == len(check.PARTS) - 3
    assert f"torch {found['environment']['torch']}" in made
    assert check.main(["out.json", "--device", "cpu", "--minutes", "0", "--only", "resume"]) == 0
    assert json.loads(Path("out.json").read_text())["resume"]["left_out"]


def test_the_page_is_that_of_what_was_found():
    check, page = script("check"), script("page")
    assert [*page.QUESTIONS] == [part.__name__ for part, _ in check.PARTS]
    assert page.PAGE.read_text() == page.page(json.loads(page.KEPT.read_text()) if page.KEPT.exists() else {})
