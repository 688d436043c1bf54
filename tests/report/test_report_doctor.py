"""What the doctor says, in a report."""

from pathlib import Path

import numpy as np
import yaml
from helpers import without_scripts, write_run

from distill_lightning.cli import report


def with_loss(folder: Path, losses: np.ndarray) -> None:
    """Gives a run 10 classes and a training loss."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["init_args"]["network"] = {"class_path": "a.Net", "init_args": {"num_classes": 10}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = "".join(f"{step},train/loss,{loss}\n" for step, loss in enumerate(losses, start=1))
    with open(folder / "metrics.csv", "a") as file:
        file.write(rows)


def test_each_run_has_its_sentence_and_an_illness_its_figure(tmp_path):
    falls = 2.3 * np.exp(-np.arange(100) / 8)
    rises = np.concatenate([2.3 - 0.02 * np.arange(30), 4.0 * np.ones(10), 2.3 * np.ones(60)])
    for name, losses in {"falls": falls, "rises": rises}.items():
        with_loss(write_run(tmp_path / name, lr=0.1 if name == "falls" else 1.0), losses)
    write_run(tmp_path / "silent", seed=3)
    assert report.main([str(tmp_path), "--out", "r.html"]) == 0
    text = without_scripts(Path("r.html"))
    assert "What the curves show" in text
    assert (
        text.count("nothing wrong was found (likely)") + text.count("nothing wrong was found (sure)") == 1
        and "the learning rate is too high" in text
    )
    assert text.count('id="doctor-') == 1 and "The learning rate is too high" in text


def test_without_curves_there_is_no_such_part(tmp_path):
    write_run(tmp_path / "silent")
    assert report.main([str(tmp_path), "--out", "r.html"]) == 0
    assert "What the curves show" not in without_scripts(Path("r.html"))
