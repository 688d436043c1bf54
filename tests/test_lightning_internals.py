"""Each private name of Lightning that the program uses, in a real run. A failure means that a new Lightning has moved
it."""

import json
import signal
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from helpers import bare_trainer, batch_of, on_two_processes
from lightning.pytorch.loops import training_epoch_loop
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import nn
from torch.utils.data import DataLoader

from distill_lightning import lightning_internals
from distill_lightning.lightning_internals import LeanModule, ShortSteps

BATCHES = 4


class Small(pl.LightningModule):
    """One linear layer, with validation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.steps: list[tuple[int, float]] = []

    def training_step(self, batch, batch_idx):
        self.steps.append((batch_idx, float(batch[0, 0])))
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.layer(batch).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def train_dataloader(self):
        numbers = torch.arange(float(BATCHES)).repeat_interleave(3)
        return DataLoader(numbers[:, None].expand(-1, 2), batch_size=3)

    val_dataloader = train_dataloader


class Lean(LeanModule, Small):
    """The same, with what LeanModule leaves out."""


def fit(module: Small, *callbacks: pl.Callback, **options) -> pl.Trainer:
    trainer = bare_trainer(**{"max_epochs": 2, "num_sanity_val_steps": 0, "callbacks": list(callbacks), **options})
    trainer.fit(module)
    return trainer


def test_a_lean_module_trains_as_any_other():
    weights = []
    for kind in (Small, Lean):
        torch.manual_seed(0)
        module = kind()
        trainer = fit(module)
        weights.append(module.layer.weight.detach().clone())
        assert {"loss", "val/loss"} <= trainer.callback_metrics.keys()  # which need the name of the running hook
        assert module.steps == 2 * [(number, float(number)) for number in range(BATCHES)]
    assert weights[0].equal(weights[1])


@pytest.mark.parametrize(("kind", "ours", "calls"), [(Small, True, True), (Lean, True, False), (Lean, False, True)])
def test_a_lean_module_is_not_asked_to_move_the_program_s_own_batches(kind, ours, calls):
    asked = []

    class Asked(kind):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            asked.append("before")
            return batch

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            asked.append("transfer")
            return batch

        def train_dataloader(self):
            loader = super().train_dataloader()
            batches = [batch_of(rows, torch.zeros(len(rows))) for rows in loader]
            return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch) if ours else loader

        def training_step(self, batch, batch_idx):
            return super().training_step(batch.images if ours else batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            return super().validation_step(batch.images if ours else batch, batch_idx)

        val_dataloader = train_dataloader

    fit(Asked(), max_epochs=1)
    assert asked == ["before", "transfer"] * (2 * BATCHES) * calls


@pytest.mark.parametrize(("kind", "calls"), [(Small, True), (Lean, False)])
def test_a_lean_module_keeps_the_running_hook_the_short_way(kind, calls, monkeypatch):
    original, names = nn.Module.__setattr__, []

    def recorded(self, name, value):
        names.append(name)
        original(self, name, value)

    monkeypatch.setattr(nn.Module, "__setattr__", recorded)
    module = kind()
    fit(module, max_epochs=1)
    assert ("_current_fx_name" in names) == calls
    assert "layer" in names  # all else goes torch's way
    assert "_current_fx_name" in vars(module)


def test_a_module_knows_whether_it_has_a_trainer():
    module = Lean()
    assert not module.has_trainer
    fit(module, max_epochs=1)
    assert module.has_trainer


class Watch(pl.Callback):
    """What is predicted after each batch, and what came."""

    def __init__(self, predict) -> None:
        self.predict, self.predicted, self.came = predict, [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.predicted.append(self.predict(trainer))
        self.came.append(False)


@pytest.mark.parametrize("together", [1, 2, 3, 5])
def test_which_batch_completes_no_step(together):
    class Steps(Watch):
        before = 0

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self.came[-1], self.before = trainer.global_step == self.before, trainer.global_step

    within = []

    class Asks(Small):
        def training_step(self, batch, batch_idx):
            within.append(lightning_internals.completes_no_step(self.trainer))
            return super().training_step(batch, batch_idx)

    watch = Steps(lightning_internals.completes_no_step)
    fit(Asks(), watch, accumulate_grad_batches=together)
    assert watch.predicted == watch.came == within
    assert watch.came == [(number + 1) % together > 0 and number + 1 < BATCHES for number in range(BATCHES)] * 2


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ({}, [4, 8]),
        ({"val_check_interval": 2}, [2, 4, 6, 8]),
        ({"val_check_interval": 3}, [3, 7]),
        ({"val_check_interval": 0.5}, [2, 4, 6, 8]),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None}, [3, 6]),
        ({"check_val_every_n_epoch": 2}, [8]),
        ({"limit_val_batches": 0}, []),
    ],
)
def test_when_a_validation_is_due(options, after):
    class Validations(Watch):
        def on_validation_start(self, trainer, pl_module):
            self.came[-1] = True

    watch = Validations(lightning_internals.validation_is_due)
    fit(Small(), watch, **options)
    assert watch.predicted == watch.came
    assert [number for number, came in enumerate(watch.came, 1) if came] == after


@pytest.mark.parametrize(
    ("stop_at", "options", "after"),
    [
        (None, {}, [4, 8]),
        (2, {}, [2]),
        (2, {"min_epochs": 2}, [4, 8]),
        (6, {"min_epochs": 1}, [4, 6]),
        (None, {"limit_train_batches": 3}, [3, 6]),
    ],
)
def test_when_an_epoch_ends(stop_at, options, after):
    class Ends(Watch):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if len(self.came) + 1 == stop_at:
                trainer.should_stop = True
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

        def on_train_epoch_end(self, trainer, pl_module):
            self.came[-1] = True

    watch = Ends(lightning_internals.epoch_ends)
    fit(Small(), watch, **options)
    assert watch.predicted == watch.came
    assert [number for number, came in enumerate(watch.came, 1) if came] == after


@pytest.mark.parametrize("alone", [False, True])
def test_signals_are_left_alone(alone):
    handlers = []

    class Looks(pl.Callback):
        def setup(self, trainer, pl_module, stage):
            if alone:
                lightning_internals.leave_signals_alone(trainer)

        def on_train_start(self, trainer, pl_module):
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    fit(Small(), Looks(), max_epochs=1)
    assert (handlers == [before]) == alone


SIGNALS_OF_TWO = """
import sys
import torch
import lightning.pytorch as pl
from test_lightning_internals import BATCHES, Small, fit
from distill_lightning import lightning_internals

counts = []
for alone in (False, True):
    class Counts(pl.Callback):
        def setup(self, trainer, pl_module, stage):
            if alone:
                lightning_internals.leave_signals_alone(trainer)

        def on_train_start(self, trainer, pl_module):
            self.original, self.count = torch.distributed.broadcast, 0
            torch.distributed.broadcast = self.counted

        def counted(self, tensor, *args, **kwargs):
            self.count += tensor.numel() == 1
            return self.original(tensor, *args, **kwargs)

        def on_train_end(self, trainer, pl_module):
            torch.distributed.broadcast = self.original

    watch = Counts()
    fit(Small(), watch, max_epochs=1, limit_val_batches=0, strategy="ddp", devices=2, use_distributed_sampler=False)
    counts.append(watch.count)
print(counts == [BATCHES, 0], counts)
"""


def test_two_processes_do_not_wait_for_each_other_to_ask_for_signals(request, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(request.path.parent), prepend=":")
    assert [out.split()[0] for out in on_two_processes(SIGNALS_OF_TWO)] == ["True", "True"]


class Told(pl.Callback):
    """Writes down what it is told in a step, and what the module says is running."""

    def __init__(self) -> None:
        self.heard: list[tuple] = []

    def hear(self, trainer, module, hook, *args) -> None:
        grads = None if module.layer.weight.grad is None else module.layer.weight.grad.sum().item()
        given = [
            {key: value.item() for key, value in one.items()}
            if isinstance(one, dict)
            else str(getattr(one, "data", one))
            for one in args
        ]
        self.heard.append((hook, module._current_fx_name, given, trainer.global_step, torch.is_grad_enabled(), grads))
        module.log(hook, float(len(self.heard)))


for hook in ShortSteps.HOOKS:
    setattr(Told, hook, lambda self, trainer, module, *args, hook=hook: self.hear(trainer, module, hook, *args))


class Stepping(Lean):
    """A module of the form that the program's methods have, which is told before the optimizer's step as they are."""

    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx)}

    def on_before_optimizer_step(self, optimizer):
        self.steps.append(("told", float(self.layer.weight.grad.sum())))


@pytest.mark.parametrize(
    ("options", "short"),
    [
        ({}, True),
        ({"precision": "bf16-mixed"}, True),
        ({"limit_train_batches": 3, "val_check_interval": 2}, True),
        ({"accumulate_grad_batches": 2}, False),
        ({"gradient_clip_val": 0.1}, False),
        ({"profiler": "simple"}, False),
    ],
    ids=str,
)
def test_short_steps_are_the_same_steps(options, short):
    """Hooks, their order and arguments, what is logged, the counters of a checkpoint, and the weights; also in a second
    fit of the same trainer.
    """
    seen = []
    for shortened in (False, True):
        torch.manual_seed(0)
        told, module = Told(), Stepping()
        trainer = bare_trainer(**{"max_epochs": 2, "num_sanity_val_steps": 0, "callbacks": [told], **options})
        steps = ShortSteps(trainer) if shortened else None
        for _ in range(2):
            trainer.fit(module)
            loops = json.dumps(lightning_internals.dump_checkpoint(trainer)["loops"])
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            seen.append((told.heard, module.steps, loops, metrics, module.layer.weight.tolist()))
            trainer.fit_loop.max_epochs += 1
        if steps is not None:
            assert steps.short is short
    assert {"loss", "val/loss", *ShortSteps.HOOKS} <= seen[0][3].keys()
    assert seen[:2] == seen[2:]


def test_hooks_of_any_kind_are_asked():
    """A function, an object that can be called, a mock; and what a callback changes in the middle of an epoch."""

    class Accumulates(pl.Callback):
        def on_train_batch_end(self, trainer, *rest):
            trainer.accumulate_grad_batches = 2

    heard, mocked = [], Mock()
    silent = pl.Callback()
    silent.on_train_batch_start = mocked
    callbacks = [pl.callbacks.LambdaCallback(on_train_batch_start=heard.append), silent]
    callbacks[0].on_train_batch_start = lambda *args: heard.append(len(args))
    callbacks.append(Accumulates())
    trainer = bare_trainer(max_epochs=1, num_sanity_val_steps=0, callbacks=callbacks)
    ShortSteps(trainer)
    trainer.fit(Stepping())
    assert heard == [4] * BATCHES and mocked.call_count == BATCHES
    assert trainer.global_step == BATCHES - 1  # the third waits for the fourth


def test_a_part_of_the_module_s_own_is_asked():
    class Scaled(Stepping):
        def backward(self, loss):
            (2 * loss).backward()

    weights = []
    for shortened in (False, True):
        torch.manual_seed(0)
        module, trainer = Scaled(), bare_trainer(max_epochs=1, num_sanity_val_steps=0)
        if shortened:
            ShortSteps(trainer)
        trainer.fit(module)
        weights.append(module.layer.weight.detach())
    assert weights[0].equal(weights[1])


@pytest.mark.parametrize("shortened", [False, True])
def test_no_signature_is_looked_up(shortened, monkeypatch):
    looked_up, original = [], training_epoch_loop.is_param_in_hook_signature
    monkeypatch.setattr(
        training_epoch_loop,
        "is_param_in_hook_signature",
        lambda hook, *args, **kwargs: looked_up.append(hook.__name__) or original(hook, *args, **kwargs),
    )
    trainer, module = bare_trainer(max_epochs=1, num_sanity_val_steps=0), Small()
    if shortened:
        ShortSteps(trainer)
    trainer.fit(module)
    assert looked_up.count("training_step") == (0 if shortened else BATCHES)
    assert module.steps == [(number, float(number)) for number in range(BATCHES)]


@pytest.mark.parametrize("weights_only", [False, True])
def test_a_dump_is_what_would_be_saved(weights_only):
    trainer = fit(Small(), max_epochs=1)
    dumped = lightning_internals.dump_checkpoint(trainer, weights_only)
    trainer.save_checkpoint("saved.ckpt", weights_only)
    saved = torch.load("saved.ckpt", weights_only=True)
    assert saved.keys() == dumped.keys()
    assert ("optimizer_states" in dumped) != weights_only
    assert all(saved["state_dict"][name].equal(value) for name, value in dumped["state_dict"].items())
    assert json.dumps(saved.get("loops")) == json.dumps(dumped.get("loops"))


def test_who_started_the_processes():
    given = LightningEnvironment()
    assert lightning_internals.cluster_environment(bare_trainer(plugins=[given])) is given
    assert isinstance(lightning_internals.cluster_environment(bare_trainer()), LightningEnvironment)


@pytest.mark.parametrize("synchronised", [False, True])
def test_whether_batch_norm_is_shared(synchronised):
    trainer = bare_trainer(strategy="ddp", devices=2, sync_batchnorm=synchronised)
    assert lightning_internals.synchronises_batch_norm(trainer) == synchronised
    assert not lightning_internals.synchronises_batch_norm(bare_trainer())
