"""Charts of groups of runs."""

from helpers import write_run

from distill_lightning.report import charts
from distill_lightning.report.groups import Group, grouped
from distill_lightning.report.records import Record
from distill_lightning.runs.summary import read_confusion, write_confusion


def test_reliability_is_pooled_over_seeds(tmp_path):
    records = [Record(write_run(tmp_path / str(seed), seed)) for seed in range(2)]
    records[1].summary["calibration"] = {"count": [0.0, 300.0], "confidence": [0.0, 165.0], "right": [0.0, 150.0]}
    (line,) = charts.reliability(grouped(records)).lines
    assert (line.x, line.y) == ([0.65], [0.6])


def test_confusion_is_summed_over_seeds(tmp_path):
    records = [Record(write_run(tmp_path / str(seed), seed)) for seed in range(3)]
    for record, names in zip(records, (["a", "b"], ["a", "b"], ["c", "d"]), strict=True):
        write_confusion(record.folder, names, [[5, 1], [2, 4]])
    (group,) = grouped(records)
    matrix = charts.confusion(group)
    assert (matrix.class_names, matrix.counts) == (["a", "b"], [[10, 2], [4, 8]])  # other classes are not added
    assert (matrix.right, matrix.total) == (18, 24)
    assert matrix.most_confused(1) == [("b", "a", 4)]


def test_class_names_come_back_as_they_were(tmp_path):
    names = ["a,b", 'c"', "d\ne", "<script>"]
    counts = [[n + m for m in range(4)] for n in range(4)]
    write_confusion(tmp_path, names, counts)
    assert read_confusion(tmp_path) == (names, counts)


def test_layers_are_shown_though_the_first_run_has_none(tmp_path):
    runs = [write_run(tmp_path / name) for name in ("unfinished", "finished")]
    rows = "".join(f"1,train/gradient_norm/{layer},{layer + 1}.0\n" for layer in range(12))
    (runs[1] / "metrics.csv").write_text(f"step,tag,value\n{rows}")
    (line,) = charts.by_depth("gradient_norm", True, [Group("a", [Record(run) for run in runs])]).lines
    assert line.y == [float(layer + 1) for layer in range(12)]
