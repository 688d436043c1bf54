"""Logged numbers after interruptions."""

import time
from pathlib import Path

from helpers import events

from distill_lightning.loggers import MetricsCSV, TensorBoard
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


def test_tensorboard_reads_a_file_after_the_one_that_it_continues():
    """Even when both are begun in one second, by processes whose names sort the other way."""
    first = TensorBoard("run", -1)
    for step in range(4):
        first.log_metrics({"a": step}, step)
    first.save()
    (file,) = Path("run").glob("events*")
    file.rename(Path("run") / f"events.out.tfevents.{int(time.time())}.zzz.9.9")
    second = TensorBoard("run", 1)
    second.log_metrics({"a": 20}, 2)
    second.save()
    assert events(Path("run")) == {"a": [(0, 0), (1, 1), (2, 20)]}


def test_a_test_that_is_made_again_counts_once():
    """The run was killed between its test and its summary."""
    first = TensorBoard("run", -1)
    first.log_metrics({"val/accuracy": 0.5}, 3)
    first.log_metrics({"test/accuracy": 0.5, "test/nll": 1.0}, 3)
    first.save()
    (file,) = Path("run").glob("events*")
    file.write_bytes(file.read_bytes() + b"torn")
    second = TensorBoard("run", 3)
    second.log_metrics({"test/accuracy": 0.5, "test/nll": 1.0}, 3)
    second.save()
    assert events(Path("run")) == {"val/accuracy": [(3, 0.5)], "test/accuracy": [(3, 0.5)], "test/nll": [(3, 1.0)]}
