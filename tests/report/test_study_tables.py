"""A study's tables and figures: numbers, labels, pairs."""

import json
from pathlib import Path
from typing import Any

from distill_lightning.report.check import SpecChecker
from distill_lightning.report.figure_builder import build_figure
from distill_lightning.report.results import Results
from distill_lightning.report.specification import TableSpec
from distill_lightning.report.table_builder import build_table, paired

ENTRIES = {
    "ensemble": [{"repetition": r} for r in range(2)],
    "single": [{"repetition": r, "member": m} for r in range(2) for m in range(3)],
    "taught": [{"repetition": r} for r in range(2)],
}


def write_runs() -> dict[str, list[tuple[dict[str, int], Path]]]:
    """A finished run for each of the entries. Accuracy: 0.1 for each repetition, 0.01 for each member."""
    runs = {}
    for entry, combinations in ENTRIES.items():
        runs[entry] = [(variables, Path(entry) / str(number)) for number, variables in enumerate(combinations)]
        for variables, folder in runs[entry]:
            folder.mkdir(parents=True)
            value = 0.5 + 0.1 * variables["repetition"] + 0.01 * variables.get("member", 5)
            (folder / "summary.json").write_text(json.dumps({"metrics": {"test/accuracy": value}}))
    return runs


def table(**given: Any) -> TableSpec:
    (spec,) = SpecChecker(Path("study.yaml"), ENTRIES).tables([given])
    return spec


def test_tables():
    runs = write_runs()
    results = Results(runs)
    members = table(rows=[{"run": "single", "label": "member {member}", "paper": 3}], columns=["test/accuracy"])
    assert build_table(members, results).rows == [
        ["member 0", "55.00 ± 7.07", "3", "2"],
        ["member 1", "56.00 ± 7.07", "3", "2"],
        ["member 2", "57.00 ± 7.07", "3", "2"],
    ]
    columns = [{"metric": "test/accuracy", "label": "r{repetition}"}]
    repetitions = table(rows=[{"run": "single"}], columns=columns)
    assert build_table(repetitions, results).header == ["", "r0", "r1", "n"]
    assert build_table(repetitions, results).rows == [["single", "51.00 ± 1.00", "61.00 ± 1.00", "3"]]
    (runs["single"][0][1] / "summary.json").unlink()  # so the first column has two runs, the second one three
    assert build_table(repetitions, Results(runs)).rows == [["single", "51.50 ± 0.71", "61.00 ± 1.00", "2 to 3"]]
    runs["single"][0][1].joinpath("summary.json").write_text(json.dumps({"metrics": {"test/accuracy": 0.5}}))
    over = table(rows=[{"run": "single"}], columns=["test/accuracy"], over="repetition")
    assert build_table(over, results).rows == [["single", "56.00 ± 7.07", "2"]]
    given = {"columns": ["test/accuracy"], "spread": "interval"}
    below = table(rows=[{"run": "single", "minus": "ensemble"}], **given)
    assert build_table(below, results).rows == [["single", "−4.00 [−4.00, −4.00]", "2"]]
    above = table(rows=[{"run": "ensemble", "minus": "single"}], **given)
    assert build_table(above, results).rows == [["ensemble", "+4.00 [4.00, 4.00]", "2"]]  # paired: the same in both
    for _, folder in runs["single"]:
        (folder / "summary.json").unlink()
    assert build_table(above, Results(runs)).rows == [["ensemble", "", "0"]]


def test_figures_call_an_entry_what_a_table_calls_it():
    columns = ["test/accuracy"]
    first = [{"run": "single", "label": "member {member}"}, {"run": "ensemble", "label": "all three"}]
    second = [{"run": "ensemble", "label": "another"}, {"run": "taught", "minus": "ensemble", "label": "a - b"}]
    results = Results(write_runs(), [table(rows=rows, columns=columns) for rows in (first, second)])
    assert {results.labels[entry] for entry in ("single", "ensemble", "taught")} == {"single", "all three", "taught"}
    checker = SpecChecker(Path("study.yaml"), ENTRIES)
    (spec,) = checker.figures([{"run": "ensemble", "y": "test/accuracy", "x": "repetition"}])
    assert [line.label for line in build_figure(spec, results).lines] == ["all three"]


def test_a_figure_has_a_line_for_each_value():
    (spec,) = SpecChecker(Path("study.yaml"), ENTRIES).figures(
        [{"run": "single", "y": "test/accuracy", "x": "repetition", "by": "member", "where": {"member": 1}}]
    )
    figure = build_figure(spec, Results(write_runs()))
    assert [line.label for line in figure.lines] == ["single, member 1"]


def test_a_figure_over_the_layers_has_the_first_value_of_each():
    runs = write_runs()
    for _, folder in runs["single"]:
        rows = [(1, "2.weight", 1e-9), (1, "5.weight", 0.5), (9, "2.weight", 7.0), (9, "5.weight", 8.0)]
        lines = "".join(f"{step},train/gradient_norm/{layer},{value}\n" for step, layer, value in rows)
        (folder / "metrics.csv").write_text(f"step,tag,value\n{lines}")
    (spec,) = SpecChecker(Path("study.yaml"), ENTRIES).figures(
        [{"run": "single", "y": "train/gradient_norm", "x": "layer", "log_y": True}]
    )
    figure = build_figure(spec, Results(runs))
    assert figure.log_y and figure.x_label == "layer, from the input"
    ((_, _, points),) = figure.drawn()
    assert [(x, y) for x, y, _ in points] == [(1, 1e-9), (2, 0.5)]


def test_small_numbers_are_written_with_a_power():
    (folder,) = [write_runs()["ensemble"][0][1]]
    (folder / "summary.json").write_text(json.dumps({"metrics": {"train/gradient_norm/2": 1.72e-12}}))
    columns = [{"metric": "train/gradient_norm/2", "as": "scientific"}]
    found = build_table(
        table(rows=[{"run": "ensemble", "where": {"repetition": 0}}], columns=columns),
        Results({"ensemble": [({"repetition": 0}, folder)]}),
    )
    assert found.rows == [["ensemble", "1.7e−12", "1"]]


def test_pairs_are_by_shared_variables():
    own = [({"r": r, "m": m}, r * 10 + m) for r in range(2) for m in range(3)]
    other = [({"r": r, "s": s}, r * 9.0 + s) for r in range(2) for s in range(2)]
    assert paired(own, other, None) == [1 - 0.5, 11 - 9.5]
    assert paired(own, [], None) == []
    # one that is missing takes its pair along
    same = [({"r": r, "m": m}, r * 10 + m + 1.0) for r in range(2) for m in range(3)]
    assert paired(own[:1] + own[2:], same, "r") == [-1, -1]
