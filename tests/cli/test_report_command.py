"""The command ``distill report``."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import write_run

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
    assert "2 runs of 1 configurations" in (tmp_path / "x.html").read_text()
    assert (
        "1 more with a configuration and a seed that are there already is left out" in (tmp_path / "x.html").read_text()
    )


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
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(picture)


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
    assert tickets.by_chance(one, two) == pytest.approx(0.0625 / 0.4375, abs=0.01)
    assert report.main([str(tmp_path), "--out", "r.html"]) == 0
    text = Path("r.html").read_text()
    assert "Weights that two seeds both keep" in text and "by chance" in text
