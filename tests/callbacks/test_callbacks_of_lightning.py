"""Each callback of Lightning: it works with a run of this program, also after a resume, or it is refused by name."""

import random
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, bare_trainer, distill, kill_and_resume, load, make, rows
from lightning.pytorch import callbacks as of_lightning

from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.methods.foreign_callbacks import INSTEAD
from distill_lightning.training.lean import LeanTrainer as Trainer

SMALL = ["--trainer.max_epochs", 2, "--data.train_part", 200, "--data.batch_size", 50]
BASE = ["--config", CONFIGS / "digits" / "baseline.yaml", *SMALL, "--checkpoint.every_n_steps", 1]
STEM = Path("logs/digits/baseline")
CALLBACKS = "--trainer.callbacks"
MONITOR = f"{CALLBACKS}.monitor"
WORK: dict[str, list] = {
    "DeviceStatsMonitor": [],
    "EarlyStopping": [MONITOR, "val/nll"],
    "LearningRateMonitor": [],
    "ModelCheckpoint": [MONITOR, "val/accuracy", f"{CALLBACKS}.save_top_k", 2],
    "ModelSummary": [],
    "RichModelSummary": [],
    "RichProgressBar": [],
    "TQDMProgressBar": [],
}
IN_PYTHON = {"LambdaCallback", "ThroughputMonitor", "BasePredictionWriter"}
"""These take functions, or are made to be derived from."""
BASES = {"Callback", "Checkpoint", "ProgressBar", "BaseFinetuning"}
REFUSED = {kind.__name__ for kind in INSTEAD} | {"BackboneFinetuning", "EMAWeightAveraging"}
GIVEN = {
    "GradientAccumulationScheduler": [f"{CALLBACKS}.scheduling", "{0: 1, 1: 2}"],
    "ModelPruning": [f"{CALLBACKS}.pruning_fn", "l1_unstructured"],
    "StochasticWeightAveraging": [f"{CALLBACKS}.swa_lrs", 0.1],
    "OnExceptionCheckpoint": [f"{CALLBACKS}.dirpath", "here"],
}


def test_every_callback_of_lightning_is_decided_about():
    assert WORK.keys() | IN_PYTHON | BASES | REFUSED == set(of_lightning.__all__)


@pytest.mark.parametrize("name", WORK)
def test_a_callback_that_works(name, monkeypatch):
    if name == "DeviceStatsMonitor" and not find_spec("psutil"):
        pytest.skip("needs psutil")
    given = [*BASE, CALLBACKS, name, *WORK[name]]
    assert distill("fit", *BASE, "--name", "without") == 0
    kill_and_resume(given, random.Random(3), monkeypatch, times=4, reach=6)
    without, killed = STEM / "without", STEM / "killed"
    assert all(torch.equal(v, load(killed)["state_dict"][k]) for k, v in load(without)["state_dict"].items())
    assert set(rows(without)) <= set(rows(killed))
    if name == "LearningRateMonitor":
        assert "lr-SGD" in {tag for _, tag, _ in rows(killed)}


@pytest.mark.parametrize("name", sorted(REFUSED - {"BaseFinetuning"}))
def test_a_callback_that_is_refused(name, capsys):
    assert distill("fit", *BASE, CALLBACKS, name, *GIVEN.get(name, [])) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"distill: the callback {name} does not work here: ")
    assert err.count("\n") == 1 and len(err) < 200
    assert not STEM.exists()


def test_checkpoints_of_ones_own_are_no_place_to_go_on_from(capsys):
    assert distill("fit", *BASE, CALLBACKS, "ModelCheckpoint", f"{CALLBACKS}.save_last", "true") == 2
    assert "the run writes last.ckpt itself" in capsys.readouterr().err
    assert distill("fit", *BASE, CALLBACKS, "ModelCheckpoint", "--name", "run") == 0
    (file,) = (STEM / "run" / "checkpoints").glob("epoch=*.ckpt")
    assert distill("test", "--ckpt_path", file) in (0, 2)
    assert distill("fit", *BASE, CALLBACKS, "ModelCheckpoint", "--ckpt_path", file) == 2
    assert "or give it as --start_from" in capsys.readouterr().err
    assert distill("fit", *BASE, "--name", "new", "--start_from", file) == 0


def test_a_trainer_in_python_refuses_them_too():
    with pytest.raises(InputError, match="give the callback EMA"):
        Trainer(logger=False, callbacks=[of_lightning.EMAWeightAveraging()])


def test_a_plain_trainer_refuses_those_that_set_the_rate():
    trainer = bare_trainer(max_epochs=1, callbacks=[of_lightning.LearningRateFinder()])
    with pytest.raises(InputError, match="the callback LearningRateFinder"):
        trainer.fit(make("baseline"), datamodule=Digits())


def test_the_callbacks_that_take_functions():
    ended, sizes = [], []
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)

    def size(batch):
        sizes.append(len(batch.images))
        return len(batch.images)

    class Writer(of_lightning.BasePredictionWriter):
        def write_on_epoch_end(self, trainer, pl_module, predictions, batch_indices):
            ended.append(len(predictions))

    from lightning.pytorch.loggers import CSVLogger

    callbacks = [
        of_lightning.LambdaCallback(on_train_end=lambda *_: ended.append("train")),
        of_lightning.ThroughputMonitor(batch_size_fn=size, window_size=2),
        Writer("epoch"),
    ]
    options = {**quiet, "logger": CSVLogger("mine"), "log_every_n_steps": 1, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=callbacks, **options)
    method, data = make("baseline"), Digits(train_part=200, batch_size=50)
    trainer.fit(method, datamodule=data)
    trainer.predict(method, datamodule=data)
    assert ended == ["train", 1]
    assert sizes.count(50) >= 4


def test_a_timer_becomes_the_time_limit_of_the_run():
    checkpoint = RunCheckpoint()
    callbacks = [of_lightning.Timer("00:00:00:30"), checkpoint]
    trainer = Trainer(logger=False, callbacks=callbacks, enable_progress_bar=False)
    assert checkpoint.max_time_s == pytest.approx(30)
    assert not any(isinstance(callback, of_lightning.Timer) for callback in trainer.callbacks)


# Metrics to monitor


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("EarlyStopping", [MONITOR, "val/los"]),
        ("ModelCheckpoint", [MONITOR, "train/loss"]),
        ("EarlyStopping", [MONITOR, "val/nll", "--data.val_size", 0]),
    ],
)
def test_a_metric_that_nothing_logs_is_refused_before_training(name, more, capsys):
    assert distill("fit", *BASE, CALLBACKS, name, *more) == 2
    err = capsys.readouterr().err
    words = (
        "give data.val_size"
        if "--data.val_size" in more
        else "give one of val/accuracy, val/accuracy_top5, val/balanced_accuracy, val/ece"
    )
    assert f"{name} monitors {more[1]}: " in err and words in err
    assert err.count("\n") == 1 and len(err) < 200
    assert not list(STEM.glob("*"))


OWN = """
from lightning.pytorch.callbacks import Callback

class Silent(Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val/mine", 1.0)

class Named(Silent):
    logs = ("val/mine",)

class NamedLate(Silent):
    def __init__(self):
        self.logs = ["val/mine"]

class NamedByProperty(Silent):
    logs = property(lambda self: {"val/mine"})
"""


@pytest.mark.parametrize(
    ("own", "status"), [("Silent", 0), ("Named", 0), ("NamedLate", 0), ("NamedByProperty", 0), ("", 2)]
)
def test_a_metric_of_ones_own_callback_can_be_monitored(own, status, capsys):
    Path("own_callbacks.py").write_text(OWN)
    added = [f"{CALLBACKS}+=own_callbacks.{own}"] if own else []
    given = [*BASE, f"{CALLBACKS}+=EarlyStopping", MONITOR, "val/mine"]
    assert distill("fit", *given, *added) == status
    assert distill("fit", *given[:-1], "val/other", *added) == {"Silent": 1}.get(own, 2)
    if own.startswith("Named"):
        assert "val/mine, val/nll" in capsys.readouterr().err
