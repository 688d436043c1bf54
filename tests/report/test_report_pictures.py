"""Pictures of groups of runs."""

from helpers import write_run

from distill_lightning.report import pictures
from distill_lightning.report.groups import grouped
from distill_lightning.report.records import Record


def test_reliability_is_pooled_over_seeds(tmp_path):
    records = [Record(write_run(tmp_path / str(seed), seed)) for seed in range(2)]
    records[1].summary["calibration"] = {"count": [0.0, 300.0], "confidence": [0.0, 165.0], "right": [0.0, 150.0]}
    assert "0.65, 0.6<" in pictures.reliability(grouped(records))
