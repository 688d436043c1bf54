"""Training metrics are of the logits that a method hands over, whatever else it does with its network."""

import torch
from helpers import bare_trainer, sgd
from lightning.pytorch.loggers import Logger

from distill_lightning.data.digits import Digits
from distill_lightning.methods.base import Method
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.values import StepOutput


class Twice(Method):
    """Calls its network first for something else: on pictures without content."""

    def training_loss(self, batch, position):
        blank = self(torch.zeros_like(batch.images))
        logits = self(batch.images)
        return StepOutput({"ce": self.cross_entropy(logits, batch), "blank": 0 * blank.sum()}, logits)


class Kept(Logger):
    def __init__(self):
        super().__init__()
        self.rows = []

    name, version = "kept", "0"

    def log_hyperparams(self, params, *args, **kwargs): ...

    def log_metrics(self, metrics, step=None):
        self.rows += metrics.items()


def test_accuracy_is_of_the_logits_that_are_handed_over():
    torch.manual_seed(0)
    trainer = bare_trainer(max_epochs=8)
    kept = Kept()
    trainer.loggers = [kept]
    trainer.fit(Twice(LeNet300100(image_size=8), optimizer=sgd), datamodule=Digits(batch_size=64))
    last = dict(kept.rows)
    assert last["train/epoch_accuracy"] > 0.9  # of the blank pictures it would be 0.1
    assert abs(last["train/epoch_accuracy"] - last["val/accuracy"]) < 0.1
