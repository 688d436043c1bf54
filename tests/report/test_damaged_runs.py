"""Run folders that are damaged or come from another person: they are skipped or refused in one line."""

import json
import math
import os
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from helpers import without_scripts, write_run

from distill_lightning.cli import report
from distill_lightning.errors import InputError
from distill_lightning.plots import Line, Plot
from distill_lightning.report import tickets
from distill_lightning.report.groups import grouped
from distill_lightning.report.records import Record, find
from distill_lightning.report.statistics import mean, std, t_interval

GOOD = {"model": {"class_path": "a.B"}, "data": {"class_path": "a.C"}, "trainer": {}}
NO_RUNS = {
    "no YAML": "a: [",
    "a tag": "!!python/object/apply:os.system ['touch owned']",
    "a text": "hello",
    "a date that is none": "model: {}\ndata: {x: 2001-99-99}",
    "a trainer that is a list": GOOD | {"trainer": [1]},
    "a model that is a text": GOOD | {"model": "B"},
    "arguments that are a list": GOOD | {"data": {"init_args": [1]}},
    "callbacks that are a number": GOOD | {"trainer": {"callbacks": 5}},
    "a class path that is a number": GOOD | {"model": {"class_path": 5}},
    "a class path that is a number, further down": GOOD | {"model": {"init_args": {"x": [{"class_path": 5}]}}},
    "a root that is a number": GOOD | {"data": {"init_args": {"root": 5}}},
    "a root that no folder can have": GOOD | {"data": {"init_args": {"root": "a\0b"}}},
    "a seed that is a list": GOOD | {"seed_everything": [1]},
    "a large integer": "model: {x: 0x" + "f" * 10_000 + "}\ndata: {}",
    "an integer of too many digits": "model: {x: " + "9" * 10_000 + "}\ndata: {}",
    "too deep": "model: {x: " + "[" * 500 + "]" * 500 + "}\ndata: {}",
    "much too deep": "model: {x: " + "[" * 100_000 + "]" * 100_000 + "}\ndata: {}",
}


@pytest.mark.parametrize("wrong", NO_RUNS)
def test_what_is_not_a_run_is_passed_over(wrong, tmp_path):
    write_run(tmp_path / "good")
    (tmp_path / "wrong").mkdir()
    content = NO_RUNS[wrong]
    (tmp_path / "wrong" / "config.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    assert [record.folder.name for record in find([tmp_path])] == ["good"]
    assert report.main([str(tmp_path), "--out", "r.html"]) == 0
    assert not Path("owned").exists()


BAD_CONFUSIONS = {
    "empty": "",
    "a text": "x,a\na,b\n",
    "a row too few": "x,a,b\na,1,2\n",
    "a cell too few": "x,a,b\na,1,2\nb,1\n",
    "other classes": "x,a,b\na,1,2\nc,1,2\n",
    "a negative number": "x,a\na,-1\n",
    "a number that is too large": "x,a\na,1" + "0" * 20 + "\n",
    "a number of too many digits": "x,a\na," + "1" * 5000 + "\n",
    "an empty row": "x,a\n\n",
}


@pytest.mark.parametrize("wrong", BAD_CONFUSIONS)
def test_a_damaged_confusion_matrix_is_refused_by_name(wrong, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "confusion.csv").write_text(BAD_CONFUSIONS[wrong])
    with pytest.raises(InputError, match=r"confusion.csv is damaged: .*: move it away") as error:
        report.main([str(tmp_path)])
    assert len(str(error.value)) < 400


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    run = write_run(tmp_path / "good")
    for name in ("summary.json", "metrics.csv"):
        (run / name).unlink()
        os.mkfifo(run / name)
    (tmp_path / "wrong").mkdir()
    os.mkfifo(tmp_path / "wrong" / "config.yaml")
    (record,) = find([tmp_path])
    assert record.summary == {} and record.series == {}


BAD_SUMMARIES = {
    "torn": '{"metrics": {"test/acc',
    "a list": "[1]",
    "metrics that are a list": '{"metrics": [1]}',
    "rounds that are texts": '{"rounds": ["a"]}',
    "a round without density": '{"rounds": [{"round": 0}]}',
    "a density that is a text": '{"rounds": [{"round": 0, "density": "1"}]}',
    "calibration that is a list": '{"calibration": [1]}',
    "calibration of unequal length": '{"calibration": {"count": [1], "confidence": [1, 2], "right": [1]}}',
    "calibration of texts": '{"calibration": {"count": ["1"], "confidence": ["1"], "right": ["1"]}}',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("wrong", BAD_SUMMARIES)
def test_a_damaged_summary_is_refused_by_name(wrong, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "summary.json").write_text(BAD_SUMMARIES[wrong])
    with pytest.raises(InputError, match="summary.json is damaged: .*: move the folder away") as error:
        report.main([str(tmp_path)])
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "rows",
    ["1,a\n", "x,a,1\n", "1,a,x\n", "1" + "0" * 30 + ",a,1\n", "1" * 5000 + ",a,1\n", "1,a," + "x" * 200_000 + "\n"],
)
def test_damaged_metrics_are_refused_by_name(rows, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "metrics.csv").write_text("step,tag,value\n" + rows)
    with pytest.raises(InputError, match=r"metrics.csv is damaged: expected rows of step, tag and value") as error:
        report.main([str(tmp_path)])
    assert len(str(error.value)) < 600


def test_numbers_that_are_none_and_numbers_that_are_too_large(tmp_path):
    metrics = {"test/accuracy": "0.9", "test/nll": True, "test/ece": None, "steps": 10**400, "epochs": 3}
    for seed in range(2):
        run = write_run(tmp_path / str(seed), seed)
        (run / "summary.json").write_text(json.dumps({"metrics": metrics, "wall_time_s": [1]}))
        rows = ["1,a,nan", "2,a,1e308", "3,a,-1e308", "4,a,inf", f"5,a,{'-' * seed}inf", "6,a,5e-324", "7,a,0"]
        (run / "metrics.csv").write_text("step,tag,value\n" + "\n".join(rows) + "\n")
    records = find([tmp_path])
    names = ("test/accuracy", "test/nll", "test/ece", "steps", "epochs", "wall_time_s", "rounds/0/x", "rounds/0")
    assert [records[0].value(name) for name in names] == [None] * 4 + [3.0] + [None] * 3
    assert report.main([str(tmp_path), "--out", "r.html"]) == 0


def test_statistics_of_numbers_that_are_too_large():
    for values in ([1e308, 1e308, -1e308], [math.inf, -math.inf], [1e308] * 3 + [1e308], [1.0, math.nan]):
        assert isinstance(mean(values), float) and isinstance(std(values), float)
        assert all(isinstance(end, float) for end in t_interval(values))
    assert math.isnan(std([1e200, -1e200]))


def test_a_plot_leaves_out_what_it_cannot_draw():
    lines = [
        Line("a", [1, 2, 3, 1e300, math.nan], [0.5, 1e308, math.inf, 1, 1], [math.nan, None, None, None, None]),
        Line("b", [1, 2], [0.0, 5e-324], [math.inf, 1e300]),
    ]
    plot = Plot("", lines, "x", "y")
    assert [points for _, _, points in plot.drawn()] == [[(1, 0.5, 0.0)], [(1, 0.0, 0.0), (2, 5e-324, 0.0)]]
    ElementTree.fromstring(plot.svg())


def test_teachers_in_a_circle(tmp_path):
    for name, other in (("a", "b"), ("b", "a"), ("c", "c")):
        write_run(tmp_path / name, teacher=str(tmp_path / other / "checkpoints" / "last.ckpt"))
    assert sum(len(group.records) for group in grouped(find([tmp_path]))) >= 1


def test_teachers_of_many_generations(tmp_path):
    for number in range(400):
        teacher = tmp_path / f"{number + 1}" / "checkpoints" / "last.ckpt"
        write_run(tmp_path / f"{number}", teacher=str(teacher))
    assert grouped(find([tmp_path / "0"]))


@pytest.mark.parametrize("teacher", ["x" * 5000 + "/checkpoints/last.ckpt", "a\0b/c/last.ckpt", "/last.ckpt", ".ckpt"])
def test_a_teacher_that_cannot_be(teacher, tmp_path):
    write_run(tmp_path / "run", teacher=teacher)
    assert len(grouped(find([tmp_path]))) == 1


def test_names_are_shown_as_text(tmp_path):
    """Of folders and settings: markup is no markup, and bytes that are no UTF-8 do not stop the report."""
    names = ["<script>alert(1)<", "a\x1b[31m", os.fsdecode(b"\xff\xfe")]
    for lr, name in enumerate(names):
        run = write_run(tmp_path / name, lr=lr)
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["model"]["init_args"]["<img src=x>"] = f"<b>{lr}"
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert report.main([str(tmp_path), "--out", "r.html"]) == 0
    text = without_scripts(Path("r.html")).replace('<script type="application/json" id="charts">', "")
    assert "<script" not in text and "<img" not in text and "<b>" not in text
    assert "&lt;script&gt;" in text and "&lt;img src=x&gt;" in text


def write_masks(folder: Path, *contents: object) -> Record:
    run = write_run(folder)
    (run / "rounds").mkdir()
    path = run / "rounds" / "masks.npz"
    if isinstance(contents[0], bytes):
        path.write_bytes(contents[0])
    else:
        np.savez(path, **{"0/w": contents[0]})
    return Record(run)


@pytest.mark.parametrize(
    "content", [b"no zip", np.ones(3), np.ones((2, 2), np.uint8), np.array([{"a": 1}], dtype=object)], ids=str
)
def test_damaged_masks_are_refused_by_name(content, tmp_path):
    with pytest.raises(InputError, match="masks.npz is damaged"):
        tickets.masks(write_masks(tmp_path / "run", content), 0)


def test_masks_that_would_be_very_large_are_refused(tmp_path):
    """A header that promises more than the file has; a file that unpacks to more than is read."""
    record = write_masks(tmp_path / "run", np.ones(3, np.uint8))
    path = record.folder / "rounds" / "masks.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000,), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0/w.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InputError, match="masks.npz is damaged"):
        tickets.masks(record, 0)


def test_masks_of_other_shapes_are_not_compared(tmp_path):
    for seed, size in enumerate((3, 4)):
        record = write_masks(tmp_path / str(seed), np.ones(size, np.uint8))
        summary = record.summary | {"rounds": [{"round": 0, "density": 1.0}]}
        (record.folder / "summary.json").write_text(json.dumps(summary))
        config = yaml.safe_load((record.folder / "config.yaml").read_text()) | {"seed_everything": seed}
        (record.folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert tickets.between_seeds(grouped(find([tmp_path]))) is None
