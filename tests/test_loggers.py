"""metrics.csv through cuts."""

from pathlib import Path

from distill_lightning.loggers import MetricsCSV
from distill_lightning.runs import read_metrics

PATH = Path("metrics.csv")


def test_what_is_saved_is_read():
    log = MetricsCSV(PATH, -1)
    log.log_metrics({"train/loss": 0.1, "train/lr": 1e-9}, 5)
    log.save()
    log.log_metrics({"val/accuracy": 1.0}, 6)
    log.finalize("success")
    assert read_metrics(PATH) == [(5, "train/loss", 0.1), (5, "train/lr", 1e-9), (6, "val/accuracy", 1.0)]


def test_rows_past_the_checkpoint_and_a_torn_tail_are_dropped():
    PATH.write_text("step,tag,value\n5,a,1.0\n6,a,2.0\n7,a,3.0\n7,test/a,3.0\n8,a,4.")
    assert len(read_metrics(PATH)) == 4
    log = MetricsCSV(PATH, 6)
    log.log_metrics({"a": 3.5}, 7)
    log.save()
    assert read_metrics(PATH) == [(5, "a", 1.0), (6, "a", 2.0), (7, "a", 3.5)]


def test_a_failed_run_writes_no_more():
    log = MetricsCSV(PATH, -1)
    log.log_metrics({"a": 1.0}, 1)
    log.finalize("failed")
    assert not PATH.exists()
