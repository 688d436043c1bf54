"""The command ``distill list``."""

import json
import os
import re
import shutil
import subprocess
import sys

from helpers import distill, made_run


def test_the_table_and_the_filters(capsys):
    for seed in (0, 1):
        made_run(f"logs/digits/kd/seed{seed}", seed=seed, accuracy=0.9 + 0.05 * seed, temperature=2.0 + seed)
    made_run("logs/digits/kd/cut", "interrupted", accuracy=0.8, temperature=2.0)
    assert distill("list") == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[0] == ["run", "state", "accuracy, %", "epochs", "time", "seed_everything", "temperature"]
    assert cells[2] == ["logs/digits/kd/seed0", "finished", "90.00", "2/4", "3:20 min", "0", "2.0"]
    assert cells[1][1:4] == ["interrupted", "75.00 val", "2/4"]
    assert distill("list", "logs", "--where", "temperature=2", "--sort", "nll", "--state", "finished") == 0
    assert "seed1" not in (out := capsys.readouterr().out) and "seed0" in out and "temperature" not in out
    assert distill("list", "--method", "dlb") == 0
    assert capsys.readouterr().out == "no such run in logs\n"
    for wrong in (["nowhere"], ["--state", "done"], ["--sort", "beauty"], ["--where", "x"]):
        assert distill("list", *wrong) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and len(error) < 200, error


def test_json_has_everything_and_no_number_that_json_has_not(capsys):
    made_run("logs/digits/kd/a", accuracy=float("nan"), temperature=4.0)
    assert distill("list", "--json") == 0
    (run,) = json.loads(capsys.readouterr().out, parse_constant=lambda text: 1 / 0)
    assert run["state"] == "finished" and run["metrics"]["test/accuracy"] is None and run["epochs"] == 2
    assert run["settings"]["model.temperature"] == 4.0 and run["folder"] == "logs/digits/kd/a"
    assert distill("list", "--json", "--state", "running") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_on_a_terminal_as_many_columns_as_fit(capsys, monkeypatch):
    made_run("logs/digits/kd/a", temperature=4.0, with_a_very_long_name=1, note="x" * 500)
    made_run("logs/digits/kd/b", temperature=2.0, with_a_very_long_name=2, note="y" * 500)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert distill("list") == 0
    out = capsys.readouterr().out
    table, _, rest = out.partition("They differ")
    assert "temperature" in table and "very_long" not in table and "very_long" in rest and "2 runs: 2 finished" in rest
    assert max(len(re.sub(r"\x1b\[\d*m", "", line)) for line in out.splitlines()) <= 80


def test_hostile_names(capsys, monkeypatch):
    made_run("logs/digits/kd/a", temperature="\x1b]0;title\x07")
    made_run("logs/digits/kd/b", temperature="[red]\n\u202e")
    os.rename("logs/digits/kd/a", "logs/digits/kd/a\x1b[2J\nb[bold]")
    os.rename(b"logs/digits/kd/b", b"logs/digits/kd/b\xff")
    for forced in ({}, {"FORCE_COLOR": "1", "COLUMNS": "200"}):
        for name, value in forced.items():
            monkeypatch.setenv(name, value)
        assert distill("list") == 0
        out = capsys.readouterr().out
        assert r"a\x1b[2J\nb[bold]" in out and r"b\udcff" in out and "[red]" in out
        assert not [part for part in ("\x1b[2J", "\x1b]", "\x07", "\u202e") if part in out]
    assert distill("list", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_a_hundred_runs_without_torch():
    run = made_run("logs/digits/kd/0").folder
    for number in range(1, 100):
        shutil.copytree(run, run.with_name(str(number)))
    code = "import sys; from distill_lightning.__main__ import main; main(['list']); "
    code += "print({'torch', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 102 and lines[-1] == "set()"
