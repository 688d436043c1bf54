"""The report: numbers, grouping, pictures, and that a run's teacher counts."""

import csv
import io
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from distill_lightning import report
from distill_lightning.errors import InputError
from distill_lightning.plots import Line, plot, ticks
from distill_lightning.report import page, tickets
from distill_lightning.report.records import Record, find, grouped
from distill_lightning.report.statistics import mean, std, t_interval
from distill_lightning.report.tables import Table, Unit, spread_text


def write_run(folder: Path, seed: int = 0, lr: float = 0.1, teacher: str | None = None, accuracy: float = 0.9) -> Path:
    """A run folder as the command leaves it."""
    folder.mkdir(parents=True)
    model = {"class_path": "distill_lightning.methods.baseline.Baseline", "init_args": {"optimizer": {"lr": lr}}}
    callbacks = [{"class_path": "SoftTargets", "init_args": {"teacher": teacher}}] if teacher else []
    config = {"seed_everything": seed, "model": model, "data": {}, "trainer": {"max_epochs": 3, "callbacks": callbacks}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [f"{step},val/accuracy,{accuracy - 0.1 / step}\n" for step in (1, 2, 3)]
    (folder / "metrics.csv").write_text("step,tag,value\n" + "".join(rows))
    metrics = {"test/accuracy": accuracy, "test/nll": 0.3, "test/ece": 0.02}
    calibration = {"count": [0.0, 100.0], "confidence": [0.0, 95.0], "right": [0.0, 90.0]}
    summary = {"metrics": metrics, "calibration": calibration, "parameters": 1234, "wall_time_s": 5.0}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_statistics():
    """Student's quantile for 4 degrees of freedom is 2.776."""
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    assert mean(values) == 4
    assert std(values) == pytest.approx(math.sqrt(50 / 4))
    low, high = t_interval(values)
    half = 2.7764451 * math.sqrt(50 / 4) / math.sqrt(5)
    assert (low, high) == pytest.approx((4 - half, 4 + half), rel=1e-6)
    assert std([1.0]) is None and t_interval([1.0]) is None


def test_numbers_as_people_write_them():
    percent = Unit("test/accuracy")
    assert spread_text([percent(v) for v in (0.94, 0.95)], percent) == "94.50 ± 0.71"
    errors = Unit("test/accuracy", "errors of 10000")
    assert spread_text([errors(0.9854)], errors) == "146.0"
    assert errors.text(errors.difference(0.001)) == "−10.0"  # more accuracy is fewer errors
    assert spread_text([1234.0, 1234.0], Unit("parameters")) == "1,234"
    assert spread_text([], percent) == ""
    assert spread_text([1.0, 2.0, 3.0], Unit("x"), interval=True) == "2.000 [−0.484, 4.484]"
    with pytest.raises(ValueError, match="expected percent"):
        Unit("x", "per mille")


def test_a_table_in_three_forms():
    table = Table("T", ["", "a|b"], [["x", "1 < 2"]], "said")
    assert table.markdown() == "### T\n\n|  | a\\|b |\n| --- | --- |\n| x | 1 < 2 |\n\nsaid\n"
    assert list(csv.reader(io.StringIO(table.csv()))) == [["", "a|b"], ["x", "1 < 2"]]
    assert "<td>1 &lt; 2</td>" in table.html()


def test_ticks_are_round_and_within():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(93.2, 95.1) == pytest.approx([93.5, 94, 94.5, 95])
    assert ticks(2, 2) == [2]


def test_a_plot_is_a_picture():
    lines = [Line("a <b>", [1, 2, 4], [0.5, math.nan, 0.7], [0.1, None, None]), Line("c", [1, 2], [0.1, 0.2])]
    root = ElementTree.fromstring(plot("t & u", lines, "x", "y", log_x=True))
    shapes = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert shapes.count("polyline") == 2 and shapes.count("polygon") == 1
    assert shapes.count("circle") == 4  # the point that is not a number is left out
    path = next(e for e in root.iter() if e.tag.endswith("polyline")).get("points").split()
    (x0, y0), (x1, y1) = ([float(n) for n in point.split(",")] for point in path)
    assert x0 < x1 and y0 > y1  # up is more
    ElementTree.fromstring(plot("", [], "", ""))


def test_runs_that_differ_by_seed_alone_are_one_group(tmp_path):
    teachers = [write_run(tmp_path / f"t{seed}", seed, lr=0.5) for seed in range(2)]
    other = write_run(tmp_path / "other", 0, lr=0.7)
    for seed, teacher in enumerate(teachers):
        write_run(tmp_path / f"s{seed}", seed, teacher=str(teacher / "checkpoints" / "last.ckpt"))
    write_run(tmp_path / "s-other", 0, teacher=str(other / "checkpoints" / "last.ckpt"))
    groups = grouped(find([tmp_path]))
    assert sorted(sorted(r.folder.name for r in g.records) for g in groups) == [
        ["other"], ["s-other"], ["s0", "s1"], ["t0", "t1"],
    ]  # fmt: skip
    labels = {group.records[0].folder.name: group.label for group in groups}
    assert "lr 0.5" in labels["t0"] and "lr 0.7" in labels["other"]
    assert len(set(labels.values())) == 4


def test_a_seed_counts_once(tmp_path, capsys):
    """A run made twice is no second sample of what seeds do."""
    for name, seed in (("a", 0), ("a-2", 0), ("b", 1)):
        write_run(tmp_path / name, seed, accuracy=0.9 + 0.02 * seed)
    (tmp_path / "a" / "summary.json").unlink()
    (group,) = grouped(find([tmp_path]))
    assert [record.folder.name for record in group.records] == ["a-2", "b"]
    assert report.main([str(tmp_path), "--out", str(tmp_path / "x.html")]) == 0
    assert "2 runs of 1 configurations" in (tmp_path / "x.html").read_text()
    assert (
        "1 more with a configuration and a seed that are there already is left out" in (tmp_path / "x.html").read_text()
    )


def test_a_logarithm_leaves_out_what_has_none():
    picture = plot("", [Line("a", [0, 1, 10], [1.0, 2.0, 3.0])], "", "", log_x=True)
    assert picture.count("<circle") == 2 and "nan" not in picture


def test_the_page(tmp_path, capsys):
    for seed, accuracy in enumerate((0.9, 0.92)):
        write_run(tmp_path / f"a{seed}", seed, accuracy=accuracy)
    write_run(tmp_path / "b", lr=0.3, accuracy=0.95)
    cut = write_run(tmp_path / "unfinished", seed=9)
    (cut / "summary.json").unlink()
    with open(cut / "metrics.csv", "a") as file:
        file.write("4,val/acc")
    assert report.main([str(tmp_path), "--out", "r.html"]) == 0
    text = Path("r.html").read_text()
    assert "91.00 ± 1.41" in text and "95.00" in text
    assert text.index("95.00") < text.index("91.00")  # best first
    assert "1 unfinished runs" in text
    assert "Reliability" in text and "optimizer.lr" in text
    assert not re.search(r"(src|href)\s*=|url\(|@import", text)  # nothing from elsewhere
    for picture in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(picture)


def test_no_runs_and_no_folder_are_errors(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        report.main([str(tmp_path / "nothing")])
    with pytest.raises(InputError, match="no run in"):
        report.main([str(tmp_path)])


def test_reliability_is_pooled_over_seeds(tmp_path):
    records = [Record(write_run(tmp_path / str(seed), seed)) for seed in range(2)]
    records[1].summary["calibration"] = {"count": [0.0, 300.0], "confidence": [0.0, 165.0], "right": [0.0, 150.0]}
    assert "0.65, 0.6<" in page.reliability(grouped(records))


def test_tickets_of_seeds_are_compared_with_chance(tmp_path):
    rng = np.random.default_rng(0)
    for seed in range(2):
        run = write_run(tmp_path / str(seed), seed)
        summary = json.loads((run / "summary.json").read_text())
        summary["rounds"] = [{"round": 0, "density": 1.0, "test_accuracy": 0.9}, {"round": 1, "density": 0.25}]
        (run / "summary.json").write_text(json.dumps(summary))
        (run / "rounds").mkdir()
        kept = np.packbits(rng.random(8000) < 0.25)
        np.savez(run / "rounds" / "masks.npz", **{"0/w": np.full(1000, 255, np.uint8), "1/w": kept})
    one, two = (tickets.masks(Record(tmp_path / str(seed)), 1) for seed in range(2))
    assert tickets.overlap(one, one) == 1
    assert tickets.overlap(one, two) == pytest.approx(0.0625 / 0.4375, abs=0.02)  # d^2 / (2 d - d^2)
    assert tickets.by_chance(one, two) == pytest.approx(0.0625 / 0.4375, abs=0.01)
    assert report.main([str(tmp_path), "--out", "r.html"]) == 0
    text = Path("r.html").read_text()
    assert "Weights that two seeds both keep" in text and "by chance" in text
