"""Checkpoints and run folders that version 0.1 wrote still open.

Version 0.1 (commit 76722dc) wrote the folders in tests/version_0_1 with

    distill fit --config configs/digits/dlb.yaml --model.network.width 4 --trainer.max_epochs 3 --data.train_part 300

and similar commands. ``dlb/cut`` is the run ``dlb/whole``, stopped after step 7.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, distill, fit, load, rows

from distill_lightning.lottery.packing import load_packed
from distill_lightning.models.convnet import ConvNet

OLD = Path(__file__).parent / "version_0_1" / "digits"
SMALL = ["--model.network.width", 4, "--data.train_part", 300]


@pytest.fixture(autouse=True)
def logs():
    shutil.copytree(OLD, "logs/digits")


@pytest.mark.parametrize("run", ["baseline/convnet-seed0", "baseline/lottery", "dlb/whole"])
def test_is_tested_with_the_same_result(run, capsys):
    folder = Path("logs/digits") / run
    expected = json.loads((folder / "summary.json").read_text())["metrics"]["test/accuracy"]
    assert distill("test", "--ckpt_path", folder / "checkpoints" / "last.ckpt") == 0
    printed = capsys.readouterr()
    assert f"{expected:.4f}" in printed.out
    assert "written by version 0.1" in printed.err


def test_is_predicted_from():
    folder = Path("logs/digits/baseline/convnet-seed0")
    assert distill("predict", "--ckpt_path", folder / "checkpoints" / "last.ckpt") == 0
    found = list(csv.DictReader((folder / "predictions.csv").open()))
    right = sum(row["label"] == row["predicted"] for row in found) / len(found)
    expected = json.loads((folder / "summary.json").read_text())["metrics"]["test/accuracy"]
    assert right == pytest.approx(expected, abs=1e-6)


def test_goes_on_to_the_same_end():
    given = ["--config", CONFIGS / "digits/dlb.yaml", *SMALL, "--trainer.max_epochs", 3]
    assert distill("fit", *given, "--name", "cut", "--ckpt_path", "last") == 0
    cut, whole = Path("logs/digits/dlb/cut"), Path("logs/digits/dlb/whole")
    for name, value in load(whole)["state_dict"].items():  # another processor may round otherwise
        torch.testing.assert_close(load(cut)["state_dict"][name], value, rtol=1e-3, atol=1e-4)
    added = ("balanced_accuracy", "macro_f1", "loss_max", "loss_std")  # by later versions
    assert [row[:2] for row in rows(cut) if not row[1].endswith(added)] == [row[:2] for row in rows(whole)]


def test_goes_on_from_the_file_alone():
    last = Path("logs/digits/dlb/cut/checkpoints/last.ckpt")
    assert distill("fit", "--ckpt_path", last) == 0
    assert json.loads(Path("logs/digits/dlb/cut/summary.json").read_text())["epochs"] == 3


def test_a_finished_run_is_found_finished(capsys):
    given = ["--config", CONFIGS / "digits/baseline.yaml", *SMALL, "--trainer.max_epochs", 2]
    assert distill("fit", *given, "--name", "convnet-seed0", "--ckpt_path", "auto") == 0
    assert "finished already" in capsys.readouterr().out


def test_teaches():
    teacher = Path("logs/digits/baseline/convnet-seed0/checkpoints/last.ckpt")
    fit("digits/kd.yaml", "--trainer.callbacks.teacher", teacher, "--trainer.max_epochs", 1, *SMALL)


def test_its_ticket_is_trained_and_its_packed_network_is_opened(capsys):
    folder = Path("logs/digits/baseline/lottery")
    lottery = ["--config", CONFIGS / "callbacks/ticket.yaml", "--trainer.callbacks.ticket", folder / "ticket.pt"]
    fit("digits/baseline.yaml", *lottery, *SMALL, "--trainer.max_epochs", 1)
    network = load_packed(folder / "packed.pt", ConvNet(width=4))
    weights = load(folder)["state_dict"]
    assert all(torch.equal(weights[f"model.{name}"], value) for name, value in network.state_dict().items())
    assert capsys.readouterr().err.count("written by version 0.1") == 2


def test_is_reported():
    assert distill("report", "logs/digits", "--out", "report.html") == 0
    assert "DLB" in Path("report.html").read_text()
