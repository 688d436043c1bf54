"""The callback Consistency: the divergence between predictions of successive epochs."""

from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, Kill, assert_same_run, bare_trainer, distill, rows, run_on, sgd

from distill_lightning.callbacks.consistency import Consistency
from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.data.digits import Digits
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.dlb import DLB
from distill_lightning.models.lenet import LeNet300100

GIVEN = ["--config", CONFIGS / "callbacks" / "consistency.yaml", "--trainer.max_epochs", 3, "--data.train_part", 310]


@pytest.mark.parametrize("method", [Baseline, DLB])
def test_by_hand(method):
    said, written = [{}, {}, {}], []

    class Kept(method):
        def training_loss(self, batch, position):
            output = super().training_loss(batch, position)
            log_probs = output.logits.detach().double().log_softmax(1)
            said[position.epoch] |= dict(zip(batch.index[: batch.num_new].tolist(), log_probs, strict=True))
            return output

        def log_metrics(self, stage, metrics, step):
            written.extend(value for name, value in metrics.items() if name == "consistency")

    torch.manual_seed(0)
    network = Kept(LeNet300100(image_size=8), optimizer=sgd)
    bare_trainer(max_epochs=3, callbacks=[Consistency()]).fit(
        network, datamodule=Digits(batch_size=100, train_part=250)
    )
    last, expected = said[0], []
    for now in said[1:]:
        both = [i for i in now if i in last]
        expected.append(float(torch.stack([(last[i].exp() * (last[i] - now[i])).sum() for i in both]).mean()))
        last = last | now
    assert written == pytest.approx(expected, rel=1e-4)


def test_rounds_of_pruning_begin_anew():
    """Of one epoch each: there is nothing to compare."""
    written = []

    class Kept(Baseline):
        def log_metrics(self, stage, metrics, step):
            written.extend(metrics)

    network = Kept(LeNet300100(image_size=8), optimizer=sgd)
    bare_trainer(max_epochs=1, callbacks=[Lottery(rounds=2), Consistency()]).fit(
        network, datamodule=Digits(batch_size=100, train_part=250)
    )
    assert "epoch_loss" in written and "consistency" not in written


def test_it_goes_on_after_a_cut(monkeypatch):
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", *GIVEN, "--checkpoint.every_n_steps", 2]
    assert distill("fit", *given, "--name", "whole") == 0
    with monkeypatch.context() as patch:
        Kill(patch, "on_train_batch_end", 7)
        assert distill("fit", *given, "--name", "killed") == 1
    assert distill("fit", *given, "--name", "killed", "--ckpt_path", "last") == 0
    assert_same_run(Path("logs/digits/baseline/whole"), Path("logs/digits/baseline/killed"))
    assert len([tag for _, tag, _ in rows(Path("logs/digits/baseline/killed")) if tag == "train/consistency"]) == 2


def test_two_processes_say_the_same():
    given = ["fit", "--config", CONFIGS / "digits" / "baseline.yaml", *GIVEN, "--model.network", "LeNet300100"]
    given += ["--model.optimizer.lr", 0.03, "--data.keep_last", "true"]
    values = []
    for devices in (1, 2):
        run_on(devices, *given, "--name", f"on-{devices}")
        run = Path(f"logs/digits/baseline/on-{devices}")
        values.append([value for _, tag, value in rows(run) if tag == "train/consistency"])
    assert values[0] == pytest.approx(values[1], rel=1e-4) and len(values[0]) == 2
