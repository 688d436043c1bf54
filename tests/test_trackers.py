"""The user's own loggers beside TensorBoard: the same version after a resume, and each point once."""

import csv
import random
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from helpers import CONFIGS, distill, kill_and_resume, rows

SMALL = ["--trainer.max_epochs", 2, "--data.train_part", 200, "--data.batch_size", 50, "--trainer.log_every_n_steps", 1]
BASE = ["--config", CONFIGS / "digits" / "baseline.yaml", *SMALL, "--checkpoint.every_n_steps", 2]


def with_logger(name: str, **arguments) -> list:
    spec = {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": arguments}
    Path("tracker.yaml").write_text(yaml.safe_dump({"trainer": {"logger": [spec]}}))
    return [*BASE, "--config", "tracker.yaml"]


def points(run: Path) -> set[tuple[int, str, float]]:
    return {(step, tag, value) for step, tag, value in rows(run)}


def test_csv(monkeypatch):
    given = with_logger("CSVLogger", save_dir="mine")
    kill_and_resume(given, random.Random(3), monkeypatch, times=4, reach=6)
    (folder,) = Path("mine/lightning_logs").iterdir()
    with open(folder / "metrics.csv") as file:
        found = [
            (int(row["step"]), tag, float(value))
            for row in csv.DictReader(file)
            for tag, value in row.items()
            if value and tag != "step" and not tag.endswith("_per_s")
        ]
    assert len(found) == len(set(found))
    assert set(found) == points(Path("logs/digits/baseline/killed"))


@pytest.mark.skipif(not find_spec("mlflow"), reason="needs mlflow")
def test_mlflow(monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    given = with_logger("MLFlowLogger", tracking_uri=f"file:{Path.cwd()}/mlruns", experiment_name="digits")
    kill_and_resume(given, random.Random(3), monkeypatch, times=4, reach=6)
    client = MlflowClient(f"file:{Path.cwd()}/mlruns")
    (found,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["model"] == "Baseline"
    logged = [
        (point.step, tag, point.value)
        for tag in found.data.metrics
        if not tag.endswith("_per_s")
        for point in client.get_metric_history(found.info.run_id, tag)
    ]
    assert len(logged) == len(set(logged))
    assert set(logged) == points(Path("logs/digits/baseline/killed"))


def test_a_logger_that_is_added_on_resume_begins_there():
    run = Path("logs/digits/baseline/run")
    assert distill("fit", *BASE, "--name", "run") == 0
    (run / "summary.json").unlink()
    assert distill("fit", *with_logger("CSVLogger", save_dir="mine"), "--name", "run", "--ckpt_path", "last") == 0
    assert Path("mine/lightning_logs/version_0/metrics.csv").is_file()
    assert distill("fit", *BASE, "--name", "run", "--ckpt_path", "last") == 0  # and may be left out again
