"""The command ``distill report``."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import without_scripts, write_run

from distill_lightning.cli import report
from distill_lightning.errors import InputError
from distill_lightning.report import tickets
from distill_lightning.report.groups import grouped
from distill_lightning.report.records import Record, find


def test_a_seed_counts_once(tmp_path, capsys):
    """A run made twice is no second sample of what seeds do."""
    for name, seed in (("a", 0), ("a-2", 0), ("b", 1)):
        write_run(tmp_path / name, seed, accuracy=0.9 + 0.02 * seed)
    (tmp_path / "a" / "summary.json").unlink()
    (group,) = grouped(find([tmp_path]))
    assert [record.folder.name for record in group.records] == ["a-2", "b"]
    assert report.main([str(tmp_path), "--out", str(tmp_path / "x.html")]) == 0
    text = without_scripts(tmp_path / "x.html")
    assert "2 runs of 1 configuration in" in text
    assert "1 run left out: the same configuration and seed is there already" in text
    assert f"{tmp_path / 'a'}</th>" in text  # which it is


def test_the_page(tmp_path, capsys):
    for seed, accuracy in enumerate((0.9, 0.92)):
        write_run(tmp_path / f"a{seed}", seed, accuracy=accuracy)
    write_run(tmp_path / "b", lr=0.3, accuracy=0.95)
    cut = write_run(tmp_path / "unfinished", seed=9)
    (cut / "summary.json").unlink()
    with open(cut / "metrics.csv", "a") as file:
        file.write("4,val/acc")
    assert report.main([str(tmp_path), "--out", "r.html"]) == 0
    text = without_scripts(Path("r.html"))
    assert "91.00 ± 1.41" in text and "95.00" in text
    assert text.index("95.00") < text.index("91.00")  # best first
    assert "1 unfinished runs" in text
    assert "Reliability" in text and "optimizer.lr" in text
    assert not re.search(r"src\s*=|href\s*=\s*.[^#]|url\(|@import", text)  # nothing from elsewhere
    tags = [line["label"] for chart in charts_of("r.html") for line in chart["lines"]]
    assert len(tags) == 4  # val/accuracy and reliability, both of two configurations


def test_no_runs_and_no_folder_are_errors(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        report.main([str(tmp_path / "nothing")])
    with pytest.raises(InputError, match="no run in"):
        report.main([str(tmp_path)])


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
    assert tickets.by_chance(one, two, {"w": 8000}) == pytest.approx(0.0625 / 0.4375, abs=0.01)
    assert report.main([str(tmp_path), "--out", "r.html"]) == 0
    text = without_scripts(Path("r.html"))
    assert "Weights that two seeds both keep" in text and "by chance" in text


def test_chance_counts_weights_and_no_bits_that_fill_a_byte(tmp_path):
    """Of 9 weights, one mask keeps 6 and another 3: together 6 + 3 - 2, both 2. With 16 "weights", it would be less."""
    run = write_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text()) | {
        "rounds": [{"round": 0, "density": 1.0}, {"round": 1, "density": 0.5}]
    }
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "rounds").mkdir()
    of_six, of_three = (np.packbits(np.arange(9) < kept) for kept in (6, 3))
    np.savez(run / "rounds" / "masks.npz", **{"0/w": np.packbits(np.ones(9, bool)), "1/w": of_six})
    first = tickets.masks(Record(run), 1)
    sizes = tickets.sizes(Record(run), first)
    assert sizes == {"w": 9}
    assert tickets.by_chance(first, {"w": of_three}, sizes) == pytest.approx(2 / 7)


def charts_of(path: str) -> list[dict]:
    """What the page's script draws."""
    (content,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', Path(path).read_text())
    return json.loads(content)


def run_of(method: str, data_set: str, name: str, seed: int = 0, **changes) -> Path:
    """A run where the command writes it."""
    run = write_run(Path("logs") / data_set / method.lower() / name, seed, **changes)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["class_path"] = f"distill_lightning.methods.{method.lower()}.{method}"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def change(run: Path, file: str, edit) -> None:
    loads, dumps = (yaml.safe_load, yaml.safe_dump) if file.endswith(".yaml") else (json.loads, json.dumps)
    content = loads((run / file).read_text())
    edit(content)
    (run / file).write_text(dumps(content))


def written(*args: str) -> str:
    assert report.main(["logs", "--out", "r.html", *args]) == 0
    return without_scripts(Path("r.html"))


def test_data_sets_have_tables_of_their_own():
    for data_set in ("mnist", "digits"):
        for method in ("Baseline", "DLB"):
            run_of(method, data_set, "lenet-seed0")
    text = written()
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Overview", "digits", "mnist", "All runs"]
    assert len(re.findall(r"<td[^>]*>baseline</td>", text)) == 2


def test_trial_runs_are_left_out_and_named():
    run_of("Baseline", "digits", "lenet-seed0")
    trial = run_of("DLB", "digits", "lenet-seed0")
    change(trial, "config.yaml", lambda config: config["trainer"].update(fast_dev_run=True))
    text = written()
    assert "1 run of 1 configuration in logs" in text
    assert "1 trial run (fast_dev_run) left out" in text and str(trial) in text
    with pytest.raises(InputError, match="there are only trial runs"):
        report.main([str(trial)])


def test_without_a_test_part_the_accuracy_is_of_validation_and_says_so():
    runs = [run_of(method, "pictures", "lenet-seed0") for method in ("Baseline", "DLB")]
    for run, accuracy in zip(runs, (0.8, 0.85), strict=True):
        change(run, "summary.json", lambda summary, a=accuracy: summary.update(metrics={"val/accuracy": a}))
    text = written()
    assert "validation accuracy, %" in text and "85.00 (validation)" in text and "+5.00" in text
    assert "numbers of the validation part only" in text
    run_of("DLB", "pictures", "lenet-seed1", 1, accuracy=0.9)  # this one has a test
    text = written()
    assert "90.00" in text and "validation accuracy, %" in text and ">accuracy, %<" in text


def test_differences_are_paired_by_seed_and_say_if_seeds_are_not_the_same():
    for seed, accuracy in enumerate((0.8, 0.9)):
        run_of("Baseline", "digits", f"lenet-seed{seed}", seed, accuracy=accuracy)
        run_of("DLB", "digits", f"lenet-seed{seed}", seed, accuracy=accuracy + 0.02)
    assert "+2.00 [2.00, 2.00]</td>" in written()
    chosen = run_of("DLB", "digits", "lenet-seed2", 2, accuracy=0.5)
    assert "+2.00 [2.00, 2.00]†</td>" in written() and "† The seeds are not the same" in written()
    for seed in range(2):
        change(Path(f"logs/digits/dlb/lenet-seed{seed}"), "config.yaml", lambda c: c.update(seed_everything=5))
    assert "‡ No seed is the same" in written()
    text = written("--baseline", str(chosen))
    assert "Differences to DLB are" in text
    with pytest.raises(InputError, match="--baseline elsewhere is none of the runs"):
        report.main(["logs", "--baseline", "elsewhere"])


def test_labels_show_what_differs():
    names = [f"a_very_long_name_of_an_experiment_with_{word}_and_more_of_it" for word in ("this", "that")]
    for lr, name in enumerate(names, start=1):
        run_of("DLB", "digits", name, lr=lr / 10)
    groups = grouped(find([Path("logs")]))
    assert sorted(group.label for group in groups) == ["DLB “…that…”, lr 0.2", "DLB “…this…”, lr 0.1"]


def test_the_page_is_opened_as_a_file(monkeypatch, capsys):
    run_of("DLB", "digits", "lenet-seed0")
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    written()
    assert not opened
    written("--open")
    assert opened == [Path("r.html").resolve().as_uri()] and opened[0].startswith("file:///")
