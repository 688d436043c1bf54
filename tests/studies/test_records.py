"""Records: the results of finished runs without weights, which a study counts as finished."""

import re
import shutil
from itertools import pairwise
from pathlib import Path

import yaml
from helpers import CONFIGS, distill, write_run

from distill_lightning.runs import RunConfig, read_metrics
from distill_lightning.studies.records import MOST_POINTS, thinned, write_record


def write_study() -> Path:
    given = {"trainer.max_epochs": 1, "data.train_part": 128, "model.network": "LeNet300100"}
    study = {
        "for": {"seed": 1},
        "options": given,
        "runs": {
            "teacher": {"config": str(CONFIGS / "digits" / "baseline.yaml")},
            "student": {
                "config": str(CONFIGS / "digits" / "kd.yaml"),
                "for": {"seed": 1, "temperature": [1, 4]},
                "options": {"model.temperature": "{temperature}", "trainer.callbacks.teacher": "${teacher}"},
            },
        },
        "tables": [{"title": "T", "rows": [{"run": "teacher"}, {"run": "student"}], "columns": ["test/accuracy"]}],
        "figures": [{"run": ["teacher"], "y": "val/accuracy"}],
    }
    path = Path("small.yaml")
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def test_a_study_goes_on_from_records(capsys):
    path = write_study()
    assert distill("study", path, "--records", "results") == 0
    table = Path("logs/studies/small/tables.md").read_text()
    runs, kept = sorted(Path("logs/digits").glob("*/*")), sorted(Path("results/digits").glob("*/*"))
    assert [run.relative_to("logs") for run in runs] == [one.relative_to("results") for one in kept]
    for run, one in zip(runs, kept, strict=True):
        names = {"config.yaml", "identity.json", "summary.json", "metrics.csv", "confusion.csv"}
        assert {file.name for file in one.iterdir()} == names
        assert sorted(read_metrics(one / "metrics.csv")) == sorted(read_metrics(run / "metrics.csv"))
    # on another machine, which has the records alone
    shutil.rmtree("logs")
    capsys.readouterr()
    assert distill("study", path, "--records", "results") == 0
    assert not Path("logs/digits").exists()
    assert Path("logs/studies/small/tables.md").read_text() == table
    # a student without its record needs the weights of the teacher
    (student,) = (one for one in kept if "temperature4" in one.name)
    teacher = next(one for one in kept if "teacher" in one.name)
    shutil.rmtree(student)
    # the tables are made without it, and keep the teacher's row
    assert distill("study", path, "--records", "results", "--tables_only") == 0
    assert not Path("logs/digits").exists()
    now, row = Path("logs/studies/small/tables.md").read_text(), r"(\w+) \| +([\d.]+).* (\d+) \|"
    (of_teacher, of_students), (same, of_one) = re.findall(row, table), re.findall(row, now)
    assert same == of_teacher and (of_students[2], of_one[2]) == ("2", "1")
    before = (teacher / "summary.json").read_bytes()
    assert distill("study", path, "--records", "results") == 0
    trained = {run.name for run in Path("logs/digits").glob("*/*")}
    assert trained == {teacher.name, student.name}
    assert Path("logs/studies/small/tables.md").read_text() == table  # trained again, it computes the same
    assert (teacher / "summary.json").read_bytes() == before and (student / "summary.json").is_file()


def test_a_long_curve_is_thinned():
    rows = [(step, tag, float(step)) for step in range(1, 1002) for tag in ("a", "b")] + [(7, "c", 0.0)]
    kept = thinned(rows)
    for tag in ("a", "b"):
        steps = [step for step, of, _ in kept if of == tag]
        assert len(steps) <= MOST_POINTS and (steps[0], steps[-1]) == (1, 1001)
        assert {b - a for a, b in pairwise(steps[1:])} == {6}
    assert [row for row in kept if row[1] == "c"] == [(7, "c", 0.0)]
    assert kept == sorted(kept, key=rows.index)  # tags are not sorted as text: a figure takes their order for the depth


def test_records_of_two_runs_with_one_name(tmp_path):
    """Runs of two machines may have the same usual name, and other options."""
    first, second = (
        write_run(tmp_path / name / "mnist" / "baseline" / "convnet-seed0", lr=lr)
        for name, lr in (("a", 0.1), ("b", 0.2))
    )
    kept = [write_record(run, tmp_path / "results") for run in (first, second, first, second)]
    assert kept[:2] == kept[2:] and kept[0].name == "convnet-seed0"
    assert kept[1].name == f"convnet-seed0-{RunConfig.read(second).id()[:8]}"
    assert [RunConfig.read(one).id() for one in kept[:2]] == [RunConfig.read(one).id() for one in (first, second)]


def test_a_run_whose_curves_are_damaged_does_not_end_the_study(capsys):
    path = write_study()
    assert distill("study", path) == 0
    (damaged,) = Path("logs/digits/baseline").glob("*/metrics.csv")
    damaged.write_text("step,tag,value\n1,train/loss\n")
    capsys.readouterr()
    assert distill("study", path, "--records", "results") == 2  # the tables need the curves
    error = capsys.readouterr().err
    assert f"{damaged.parent} has no record: " in error and "metrics.csv, line 2: expected a step, a tag" in error
    assert len([*Path("results").rglob("summary.json")]) == 2  # of the two students
