"""The doctor's curves, from every kind of file; and files that cannot be read."""

import json
import math

import numpy as np
import pytest
import yaml

from distill_lightning.__main__ import main
from distill_lightning.doctor import diagnose
from distill_lightning.doctor.measures import measure
from distill_lightning.doctor.reading import find, read
from distill_lightning.errors import InputError

STEPS = 40
LOSSES = [2.3 * math.exp(-step / 8) + 0.05 for step in range(1, STEPS + 1)]


def rows() -> list[tuple[int, str, float]]:
    """Curves of a healthy run of 10 classes: every step's loss, and ten evaluations."""
    found = [(step, "train/loss", loss) for step, loss in enumerate(LOSSES, start=1)]
    for step in range(4, STEPS + 1, 4):
        found += [(step, "train/accuracy", 1 - LOSSES[step - 1] / 2.5), (step, "val/nll", LOSSES[step - 1] + 0.02)]
        found += [(step, "val/accuracy", 0.99 - LOSSES[step - 1] / 2.5), (step, "train/lr", 0.1)]
    return found


def write_long(path, table=None) -> None:
    path.write_text("step,tag,value\n" + "".join(f"{s},{t},{v!r}\n" for s, t, v in table or rows()))


def answer(capsys, *args) -> list[dict]:
    assert main(["doctor", *map(str, args), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def same_curves(place) -> None:
    curves = read(place, 10, 32)
    assert np.allclose(curves.loss.values, LOSSES, rtol=1e-5)
    assert list(curves.loss.steps) == list(range(1, STEPS + 1))
    assert len(curves.val_loss) == len(curves.val_accuracy) == len(curves.accuracy) == 10
    assert curves.val_accuracy.values[-1] == pytest.approx(0.99 - LOSSES[-1] / 2.5)
    assert curves.rate.values[-1] == pytest.approx(0.1)


def test_rows_of_step_tag_and_value(tmp_path, capsys):
    write_long(tmp_path / "curves.csv")
    same_curves(tmp_path / "curves.csv")
    (found,) = answer(capsys, tmp_path / "curves.csv", "--num_classes", 10, "--batch_size", 32)
    assert found["verdict"] == "healthy" and {"file", "evidence", "advice"} < found.keys()


def test_a_column_for_each_tag(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    spelt = {"train/loss": "train_loss_step", "train/accuracy": "train_acc_epoch", "val/nll": "val_loss"}
    spelt |= {"val/accuracy": "val_acc", "train/lr": "lr-SGD"}
    for step, tag, value in rows():
        logger.log_metrics({spelt[tag]: value}, step)
    logger.save()
    same_curves(tmp_path / "lightning_logs" / "version_0" / "metrics.csv")
    assert find([tmp_path]) == [tmp_path / "lightning_logs" / "version_0"]


def test_events_of_tensorboard(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("a text", "words", 0)
        for step, tag, value in rows():
            writer.add_scalar({"train/loss": "Loss/train", "val/nll": "Loss/val"}.get(tag, tag), value, step)
    same_curves(tmp_path)
    (events,) = tmp_path.glob("*tfevents*")
    same_curves(events)
    events.write_bytes(events.read_bytes()[:-7])  # the writer was killed
    assert len(read(tmp_path, 10, 32).loss) == STEPS


def test_accuracies_in_percent(tmp_path):
    write_long(tmp_path / "a.csv", [(s, t, v * 100 if "accuracy" in t else v) for s, t, v in rows()])
    same_curves(tmp_path / "a.csv")


def test_a_run_says_its_classes_and_its_loss_of_labels(tmp_path):
    """Of KD, the loss is that of the labels, without its weight; the largest loss is scaled alike."""
    model = {"class_path": "distill_lightning.methods.kd.KD", "init_args": {"hard_weight": 0.1, "label_smoothing": 0.1}}
    model["init_args"]["network"] = {"class_path": "a.Net", "init_args": {"num_classes": 7, "dropout": 0.2}}
    data = {"class_path": "a.Data", "init_args": {"batch_size": 16}}
    config = {"model": model, "data": data, "trainer": {"accumulate_grad_batches": 2, "max_epochs": 3}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    table = []
    for step in range(10, 110, 10):
        table += [(step, "train/loss_hard", 0.15), (step, "train/loss_soft", 0.85), (step, "train/loss", 1.0)]
        table += [(step, "train/loss_max", 2.0), (step, "train/loss_std", 0.5)]
    write_long(tmp_path / "metrics.csv", table)
    curves = read(tmp_path)
    assert (curves.num_classes, curves.batch_size, curves.smoothing, curves.mixed) == (7, 32, 0.1, True)
    assert curves.loss.values[0] == pytest.approx(1.5)
    assert curves.largest.values[0] == pytest.approx(3.0) and curves.deviation.values[0] == pytest.approx(0.75)
    assert curves.settings["model.network.dropout"] == 0.2


def test_the_loss_of_labels_of_ddgsd_is_the_sum_over_two_views(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"class_path": "DDGSD"}, "data": {}, "trainer": {}}))
    terms = {"loss_ce": 3.0, "loss_views": 0.5, "loss_features": 0.5, "loss": 4.0}
    table = [(step, f"train/{name}", term) for step in range(10, 110, 10) for name, term in terms.items()]
    write_long(tmp_path / "metrics.csv", table)
    assert read(tmp_path).loss.values[0] == pytest.approx(1.5)


def test_the_loss_of_labels_of_snapshot_is_larger_from_the_second_cycle_on(tmp_path):
    model = {"class_path": "Snapshot", "init_args": {"temperature": 2.0}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": {}, "trainer": {}}))
    table = [(step, f"train/{name}", 1.5) for step in (10, 20, 30, 40) for name in ("loss_ce", "loss")]
    table += [(step, "train/loss_snapshot", 0.5) for step in (30, 40)]
    write_long(tmp_path / "metrics.csv", table)
    assert list(read(tmp_path).loss.values) == pytest.approx([1.5, 1.5, 1.0, 1.0])


def test_the_labels_of_a_specialist_are_not_those_of_the_data(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"class_path": "a.Specialist"}, "data": {}}))
    table = [(step, f"train/{name}", 1.5) for step in (10, 20, 30, 40) for name in ("loss_hard", "loss")]
    write_long(tmp_path / "metrics.csv", table)
    assert not read(tmp_path).of_labels


@pytest.mark.parametrize("option", ["dropout", "drop_rate", "drop_path_rate", "stochastic_depth", "attn_drop_rate"])
def test_what_drops_parts_of_the_network_makes_training_harder(tmp_path, option):
    for rate in (0.0, 0.2):
        model = {"class_path": "a.M", "init_args": {"network": {"class_path": "a.Net", "init_args": {option: rate}}}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": {}}))
        write_long(tmp_path / "metrics.csv")
        assert read(tmp_path).mixed == (rate > 0)


def test_epochs_are_no_steps(tmp_path):
    """A history with one row for each of 15 epochs has thousands of steps, which nothing says."""
    lines = "".join(f"{epoch},{2.3 - 0.08 * epoch}\n" for epoch in range(15))
    found = {}
    for name in ("epoch", "step"):
        (tmp_path / f"{name}.csv").write_text(f"{name},loss\n{lines}")
        found[name] = measure(read(tmp_path / f"{name}.csv", 10))
    assert found["step"].updates == found["step"].steps == found["epoch"].steps == 14
    assert math.isnan(found["epoch"].updates)
    assert diagnose(read(tmp_path / "step.csv", 10)).verdict == "lr_too_low"
    assert "steps (flagged below 20)" not in diagnose(read(tmp_path / "epoch.csv", 10)).evidence


@pytest.mark.parametrize("terms", [{"simkd": 1.0, "hard": 0.0}, {"feature": 1.0}])
def test_a_loss_without_labels_is_not_judged(tmp_path, capsys, terms):
    """SimKD teaches by features alone: its loss has no ln K, though the network is better than it says."""
    network = {"class_path": "a.Net", "init_args": {"num_classes": 10}}
    config = {"model": {"class_path": "a.M", "init_args": {"network": network, "hard_weight": 0.0}}, "data": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    table = [(step, f"train/loss_{name}", term) for step in range(1, 101) for name, term in terms.items()]
    table += [(step, "train/loss", 1.0) for step in range(1, 101)]
    for step in (50, 100):
        table += [(step, "train/epoch_accuracy", 0.1), (step, "val/accuracy", 0.9), (step, "val/nll", 0.3)]
    write_long(tmp_path / "metrics.csv", table)
    assert not read(tmp_path).of_labels
    (found,) = answer(capsys, tmp_path)
    assert found["verdict"] == "unsure" and "The labels have no part in the training loss" in found["evidence"]


DAMAGED = {
    "empty": b"",
    "one line": b"step,tag,value\n",
    "one point": b"step,tag,value\n1,train/loss,2.3\n",
    "no numbers": b"step,tag,value\nx,train/loss,y\n,,\n1\n",
    "nan": b"step,tag,value\n" + b"".join(b"%d,train/loss,nan\n" % n for n in range(20)),
    "other columns": b"a,b\n1,2\n",
    "bytes": bytes(range(256)) * 10,
    "nul": b"step,tag,value\n1,train/loss,\0\0\0",
    "half": b"step,tag,value\n1,train/loss,2.3\n2,train/lo",
    "huge step": b"step,tag,value\n1e300,train/loss,2.3\n",
    "quote": b'step,tag,value\n1,"train/loss,2.3\n' + b"x" * 200_000,
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("ending", ["curves.csv", "events.out.tfevents.1.x"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, capsys, name, ending):
    path = tmp_path / ending
    path.write_bytes(DAMAGED[name])
    (found,) = answer(capsys, path, "--num_classes", 10)
    assert found["verdict"] == ("diverged" if name == "nan" and ending == "curves.csv" else "unsure")
    assert main(["doctor", str(path)]) == 0
    if found["verdict"] == "unsure":
        assert capsys.readouterr().out.count("\n") == 1


def test_a_damaged_configuration_is_no_configuration(tmp_path, capsys):
    write_long(tmp_path / "metrics.csv")
    (tmp_path / "config.yaml").write_text("model: [1, {")
    (found,) = answer(capsys, tmp_path)
    assert found["verdict"] == "unsure" and "--num_classes" in found["evidence"]
    assert answer(capsys, tmp_path, "--num_classes", 10)[0]["verdict"] == "healthy"


def test_wrong_options(tmp_path, capsys):
    with pytest.raises(InputError, match="there is no file or folder"):
        find([tmp_path / "none"])
    with pytest.raises(InputError, match="there are no curves in"):
        find([tmp_path])
    write_long(tmp_path / "a.csv")
    assert main(["doctor", str(tmp_path / "a.csv"), "--num_classes", "1"]) == 2
    assert "--num_classes is 1: expected 2 or more" in capsys.readouterr().err
