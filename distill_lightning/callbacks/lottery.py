"""Lottery tickets: train, prune, rewind, train again, in one fit (Frankle & Carbin 2019, arXiv:1803.03635, section 2).

    round 0     train the whole network for T steps, from theta_0; theta_k is kept on the way, at step k
    prune       of the weights that are left, the share p of least magnitude (masks m, per layer or together)
    round r     go back to theta_k, times m, and to step k of schedule and order of samples; train for T - k steps

T is the training that the run describes (``trainer.max_epochs``), or ``length``. ``retrain`` is one of

    weights         rewind weights and schedule to step k (k = 0 in the paper; k > 0 in Frankle et al. 2019, 1912.05671)
    learning_rate   keep the trained weights, rewind the schedule (Renda et al. 2020, arXiv:2003.02389)
    fine_tune       keep the trained weights, go on at the last learning rate

Which weights: those of Linear and convolution layers, by module type; the last Linear layer at half the rate of the
others (appendix G of the paper); never biases and norms, unless named. Rates are of what is left; layers of equal rate
are ranked together where the scope is global. How many stay is counted from the first round on (masks.py).

What a method trains beside the network (heads, peers) is rewound with it, and never pruned. A ticket of step k is
trained from step k on; with other weights it is trained from the start.

Zeros are exact: weights are masked after every optimizer step, and gradients before clipping, so that no momentum,
weight decay or clipping norm sees them. They stand in every file as zeros; the network's keys are the plain network's.

Each round ends with two tests: at the weights of its lowest validation loss (nll), which are kept in
rounds/round_NN.ckpt, and at its last. The pruning goes by the last. Evaluation every so many steps
(trainer.val_check_interval, with check_val_every_n_epoch null) finds the former. checkpoints/best.ckpt is the best of
all rounds, which may be the whole network.

Kept in the checkpoint: masks, packed; theta_k with buffers, what the method remembered on every rank, and the
optimizer's state where it is kept; the best weights of the running round; the table of rounds. A resume goes on
exactly, at any step. Rounds change when the first batch of the next one is due, so that what is written at a round's
end is the trained network. Under DDP every process computes the masks from the same weights; they are compared.
"""

import copy
import csv
import io
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from distill_lightning import masks as masking
from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.data.base import Clock, ImageData, Place, Plan
from distill_lightning.data.order import PRUNE, run_seed, seed_for
from distill_lightning.errors import InputError
from distill_lightning.files import write_whole
from distill_lightning.plots import Line, plot
from distill_lightning.tensor_files import write_tensors
from distill_lightning.tickets import Ticket, latencies, must_fit, packed, sizes


class Opened(NamedTuple):
    """What is taken of a ticket: weights of step ``step``, and the masks to start with."""

    weights: dict[str, Tensor]
    masks: masking.Masks
    step: int


class Rounds(Clock):
    """Where training stands, in rounds. Everything is counted in batches.

    Args:
        per_epoch: batches in an epoch.
        first: in round 0.
        start: left out at the beginning of round 0: where a ticket's weights belong.
        skipped: k, which later rounds leave out at their beginning.
        later: in a later round.
        rounds: later rounds.
        new_order: whether each round has its own order of samples.
        end: whether the schedule stays at its end in later rounds.
    """

    def __init__(
        self, per_epoch: int, first: int, start: int, skipped: int, later: int, rounds: int, new_order: bool, end: bool
    ) -> None:
        self.per_epoch, self.first, self.start, self.skipped, self.later = per_epoch, first, start, skipped, later
        self.rounds, self.new_order, self.end = rounds, new_order, end
        self.total = first + rounds * later

    def round_of(self, batch: int) -> tuple[int, int]:
        """The round that a batch, counted from the start of training, belongs to, and its number in it, skipped ones
        counted."""
        if batch < self.first:
            return 0, batch + self.start
        number, within = divmod(batch - self.first, self.later)
        return number + 1, within + self.skipped

    def place(self, epoch: int, batch: int) -> Place | None:
        at = epoch * self.per_epoch + batch
        if at >= self.total:
            return None
        number, within = self.round_of(at)
        end = (self.first + self.start - 1) / self.per_epoch if self.end and number else None
        return Place(*divmod(within, self.per_epoch), number if self.new_order else 0, end)

    def epochs(self, trainer: pl.Trainer) -> float:
        return (self.first + self.start) / self.per_epoch

    def epochs_in_all(self) -> int:
        return -(-self.total // self.per_epoch)


class Lottery(Callback):
    """Finds a lottery ticket, or trains one.

    Args:
        rounds: of pruning; 0 to train a ticket as it is.
        linear: share of the weights left that a round prunes in linear layers.
        conv: in convolutions.
        output: in the last linear layer; half of ``linear`` by default.
        density: that the last round is to leave, of all prunable weights, a ticket's zeros included; scales the rates.
            With 1 round: one-shot.
        scope: rank weights within each layer, or those of equal rate together.
        leave_out: modules, by name or by the beginning of it, whose weights are not pruned.
        also: other parameters to prune, by name, and their rates.
        retrain: what later rounds start from.
        rewind_to: "500 steps" or "2 epochs": k. Fine-tuning goes on from the end, and has none.
        length: "50000 steps" or "20 epochs": T; that of the run by default.
        optimizer: its state at the start of a later round: fresh, or kept as it was at step k (at the end of the last
            round, where the weights are kept).
        order: of samples in a later round: the same as in the first, or a new one.
        ticket: a file that another run left, to start from.
        ticket_round: the round whose masks to take; the last by default.
        weights: those that the ticket rewinds to, or those that this run's seed gives: the control of the paper.
        mask: as found, shuffled within each layer, or as many weights drawn at random over all layers.
    """

    def __init__(
        self,
        rounds: int = 15,
        linear: float = 0.2,
        conv: float = 0.2,
        output: float | None = None,
        density: float | None = None,
        scope: Literal["layers", "global"] = "layers",
        leave_out: list[str] | None = None,
        also: dict[str, float] | None = None,
        retrain: Literal["weights", "learning_rate", "fine_tune"] = "weights",
        rewind_to: str = "0 steps",
        length: str | None = None,
        optimizer: Literal["fresh", "kept"] = "fresh",
        order: Literal["same", "new"] = "same",
        ticket: str | None = None,
        ticket_round: int | None = None,
        weights: Literal["rewound", "reinitialised"] = "rewound",
        mask: Literal["found", "shuffled", "random"] = "found",
    ) -> None:
        super().__init__()
        output = linear / 2 if output is None else output
        for name, rate in {"linear": linear, "conv": conv, "output": output, **(also or {})}.items():
            if not 0 <= rate < 1:
                raise InputError(f"Lottery: the rate of {name} is {rate}: it must lie in [0, 1)")
        if density is not None and not 0 < density < 1:
            raise InputError(f"Lottery.density is {density}: it must lie between 0 and 1")
        if rounds < 0 or (rounds == 0 and ticket is None):
            raise InputError(f"Lottery.rounds is {rounds}: it must be 1 or more, or 0 with a ticket")
        if ticket is None and (weights != "rewound" or mask != "found" or ticket_round is not None):
            raise InputError("Lottery: ticket_round, weights and mask say what to do with a ticket: give a ticket")
        self.rounds, self.linear, self.conv, self.output, self.density = rounds, linear, conv, output, density
        self.scope, self.leave_out, self.also = scope, leave_out or [], also or {}
        self.retrain, self.rewind_to, self.length, self.optimizer = retrain, rewind_to, length, optimizer
        self.order, self.ticket, self.ticket_round = order, ticket, ticket_round
        self.start_weights, self.start_mask = weights, mask
        self.opened: Opened | None = None
        self._forget()

    def _forget(self) -> None:
        """What the checkpoint keeps, as it is before training."""
        self.round = -1
        self.masks: masking.Masks = {}
        self.of_rounds: list[dict[str, Tensor]] = []  # packed masks
        self.rewind: dict[str, Any] | None = None
        self.best: dict[str, Any] | None = None
        self.table: list[dict[str, Any]] = []

    # Before training

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if any(word in type(trainer.strategy).__name__ for word in ("FSDP", "DeepSpeed", "ModelParallel")):
            raise InputError(f"Lottery cannot prune under {type(trainer.strategy).__name__}: use DDP")
        if any(isinstance(callback, EarlyStopping) for callback in trainer.callbacks):
            raise InputError(
                "Lottery: EarlyStopping would end all rounds at once: leave it out; each round keeps its best"
            )
        for callback in trainer.callbacks:
            if isinstance(callback, GradientAccumulationScheduler | StochasticWeightAveraging):
                raise InputError(f"Lottery cannot keep count beside {type(callback).__name__}: leave it out")
        if trainer.fast_dev_run:
            raise InputError("Lottery: fast_dev_run ends before a round does: give rounds of a short length instead")
        self._forget()  # what an earlier fit left; a checkpoint is read after this
        data: ImageData = trainer.datamodule
        self.opened = self._open_ticket(pl_module.model) if self.ticket is not None else None
        data.clock = self.clock = self._clock(trainer, data)
        self.asked_epochs, trainer.fit_loop.max_epochs = trainer.max_epochs, self.clock.epochs_in_all()
        self.rates = self._rates(pl_module.model)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            trainer.fit_loop.max_epochs = self.asked_epochs

    def _clock(self, trainer: pl.Trainer, data: ImageData) -> Rounds:
        limit = trainer.limit_train_batches
        per_epoch = data.batches_per_epoch()
        per_epoch = min(per_epoch, limit) if isinstance(limit, int) else int(per_epoch * limit)
        together = trainer.accumulate_grad_batches
        first = self._batches(self.length, "length", per_epoch, together) if self.length else None
        first = trainer.max_epochs * per_epoch if first is None else first
        start = self.opened.step * together if self.opened and self.start_weights == "rewound" else 0
        skipped = max(start, self._batches(self.rewind_to, "rewind_to", per_epoch, together))
        if skipped >= first:
            late = self.opened and skipped == start
            what = f"the ticket is of step {self.opened.step}" if late else f"Lottery.rewind_to is {self.rewind_to}"
            raise InputError(f"{what}, but a round has {first // together} steps: rewind to one of them")
        # what is kept is trained on from the end: nothing is skipped but in the schedule
        skipped = 0 if self.retrain == "fine_tune" else skipped
        for batches in (first, skipped):
            if (rest := batches % per_epoch) and (per_epoch % together or rest % together):
                raise InputError(
                    f"Lottery: a round begins or ends after {rest} of an epoch's {per_epoch} batches, where "
                    f"accumulate_grad_batches {together} ends no step, or not in each: use whole epochs"
                )
        end, new = self.retrain == "fine_tune", self.order == "new"
        repeats = getattr(trainer.lightning_module, "repeats_last_batch", False)
        if self.order == "new" and skipped and repeats:
            raise InputError(
                "Lottery: a method that repeats the last batch and rewinds to a later step needs order same"
            )
        clock = Rounds(per_epoch, first - start, start, skipped, first - skipped, self.rounds, new, end)
        every = self._between_validations(trainer, per_epoch)
        if data.val_size and self.rounds and (clock.first % every or clock.later % every):
            self._say(
                trainer,
                f"validation comes every {every // together} steps, at others in each round of "
                f"{clock.later // together}: early stops cannot be compared",
            )
        return clock

    @staticmethod
    def _say(trainer: pl.Trainer, text: str) -> None:
        if trainer.is_global_zero:
            print(f"Lottery: {text}", file=sys.stderr)

    @staticmethod
    def _between_validations(trainer: pl.Trainer, per_epoch: int) -> int:
        """In batches: within an epoch, or of several."""
        interval, epochs = trainer.val_check_interval, trainer.check_val_every_n_epoch
        batches = int(interval * per_epoch) if isinstance(interval, float) else interval
        return max(1, batches if epochs is None or batches < per_epoch else epochs * per_epoch)

    def _steps(self, trainer: pl.Trainer, batches: int) -> int:
        """Optimizer steps in so many batches from the start of an epoch; an epoch's end completes one."""
        epochs, rest = divmod(batches, self.clock.per_epoch)
        together = trainer.accumulate_grad_batches
        return epochs * -(-self.clock.per_epoch // together) + -(-rest // together)

    @staticmethod
    def _batches(words: str, name: str, per_epoch: int, together: int) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?) (step|epoch)s?", words)
        if not match or (match[2] == "step" and "." in match[1]):
            raise InputError(f'Lottery.{name} is "{words}": give words like "500 steps" or "2 epochs"')
        return int(match[1]) * together if match[2] == "step" else round(float(match[1]) * per_epoch)

    def _rates(self, network: nn.Module) -> dict[str, float]:
        """The rate of every parameter that is pruned, by name."""
        linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        rates, found = {}, set()
        for name, module in network.named_modules():
            out = {left for left in self.leave_out if name == left or name.startswith(f"{left}.")}
            found |= out
            if out or not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                continue
            rate = self.output if linears and name == linears[-1] else self.linear
            rate = rate if isinstance(module, nn.Linear) else self.conv
            rates[f"{name}.weight" if name else "weight"] = rate
        known = dict(network.named_parameters())
        for name in [*(set(self.leave_out) - found), *(self.also.keys() - known.keys())]:
            raise InputError(
                f"Lottery: {type(network).__name__} has nothing named {name}: it has {', '.join([*known][:6])} ..."
            )
        rates = {name: rate for name, rate in (rates | self.also).items() if rate > 0}
        if not rates:
            raise InputError(f"Lottery: there is nothing to prune in {type(network).__name__}")
        all_of, left = ({n: int(mask.sum()) for n, mask in masks.items()} for masks in self._first_masks(known, rates))
        if self.density is not None and self.rounds:
            try:  # of what a ticket has left
                share = self.density * sum(all_of.values()) / sum(left.values())
                factor = masking.rate_factor(left, rates, self.rounds, share)
            except ValueError as error:
                raise InputError(f"Lottery: {error}") from error
            rates = {name: rate * factor for name, rate in rates.items()}
        keep = {name: masking.kept_after(left[name], rate, self.rounds) for name, rate in rates.items()}
        for names in self._ranked_together(rates):
            if not sum(keep[name] for name in names):
                raise InputError(
                    f"Lottery: {self.rounds} rounds leave nothing of {', '.join(names)} "
                    f"({sum(left[name] for name in names)} weights): prune less, or leave it out"
                )
        return rates

    def _first_masks(self, parameters: dict[str, Tensor], names: Iterable[str]) -> tuple[masking.Masks, masking.Masks]:
        """Of the whole network and of round 0, which a ticket may have pruned."""
        whole = masking.ones({name: parameters[name].detach().cpu() for name in names})
        return whole, {name: self.opened.masks.get(name, mask) if self.opened else mask for name, mask in whole.items()}

    def _open_ticket(self, network: nn.Module) -> "Opened":
        ticket = Ticket.open(self.ticket)
        must_fit(ticket.weights, network, f"the ticket {self.ticket}")
        last = len(ticket.rounds) - 1
        number = last if self.ticket_round is None else self.ticket_round
        if not 0 <= number <= last:
            raise InputError(f"Lottery.ticket_round is {number}: the ticket {self.ticket} has rounds 0 to {last}")
        found = ticket.masks(number)
        if self.start_mask != "found":
            generator = torch.Generator().manual_seed(seed_for(PRUNE, run_seed()))
            found = masking.random_like(found, generator, pooled=self.start_mask == "random")
        return Opened(ticket.weights, found, ticket.step)

    # Hooks on the optimizer

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.hooks = [o.register_step_post_hook(lambda *_: self._mask_weights()) for o in trainer.optimizers]
        self._bind(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for hook in self.hooks:
            hook.remove()

    def _bind(self, pl_module: pl.LightningModule) -> None:
        """Pairs the network's parameters with their masks, in the parameters' own type."""
        parameters = dict(pl_module.model.named_parameters())
        self.pruned = [parameters[name] for name in self.masks]
        self.factors = [
            torch.empty_like(p, requires_grad=False).copy_(mask)  # laid out as the parameter is
            for mask, p in zip(self.masks.values(), self.pruned, strict=True)
        ]
        self.density_now = masking.density(self.masks) if self.masks else 1.0

    @torch.no_grad()
    def _mask_weights(self) -> None:
        if self.pruned:
            torch._foreach_mul_([p.data for p in self.pruned], self.factors)

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        # before clipping: what is pruned must not count in the norm
        pairs = [(p.grad, factor) for p, factor in zip(self.pruned, self.factors, strict=True) if p.grad is not None]
        if pairs:
            torch._foreach_mul_(*map(list, zip(*pairs, strict=True)))

    # Rounds

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        at = trainer.current_epoch * self.clock.per_epoch + batch_idx
        number, within = self.clock.round_of(at)
        if self.round < 0:
            self._begin(trainer, pl_module)
        elif number > self.round:
            self._close(trainer, pl_module, trainer.global_step + 1)
            self._prune(trainer, pl_module)
        if self.rewind is None and within >= self.clock.skipped:
            self._remember(trainer, pl_module)

    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first step of all: everything is kept, or what a ticket keeps."""
        network = pl_module.model
        self.round, (_, self.masks) = 0, self._first_masks(dict(network.named_parameters()), self.rates)
        if self.opened:
            self.masks = self.opened.masks | self.masks
            if self.start_weights == "rewound":
                _put(network.state_dict(), self.opened.weights)
        self._keep_masks(trainer)
        self._apply(pl_module)

    def _remember(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """theta_k, and what else belongs to step k."""
        kept = self.optimizer == "kept" and self.retrain == "weights"
        memory = {name: _copy(getattr(pl_module, name)) for name in pl_module.memory}
        self.rewind = {
            "weights": _copy(pl_module.model.state_dict()),
            "beside": _copy(_beside(pl_module)) if self.retrain == "weights" else {},
            "optimizer": _copy(trainer.optimizers[0].state_dict()) if kept else None,
            "memory": _of_ranks(trainer, memory) if memory else [],
            "shared": {name: _copy(getattr(pl_module, name)) for name in pl_module.shared_memory},
        }

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or self.round < 0:
            return
        value = float(trainer.callback_metrics["val/nll"])
        if self.best is None or value < self.best["val_nll"]:
            self.best = {
                "val_nll": value,
                "step": self._step_in_round(trainer),
                "weights": _copy(pl_module.model.state_dict()),
            }

    def _done(self, trainer: pl.Trainer) -> int:
        """Batches since training began."""
        return trainer.current_epoch * self.clock.per_epoch + trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _step_in_round(self, trainer: pl.Trainer) -> int:
        """Optimizer steps since the round's beginning, rewound ones counted."""
        return self._steps(trainer, self.clock.round_of(self._done(trainer) - 1)[1] + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._done(trainer) >= self.clock.total and len(self.table) == self.round:
            self._close(trainer, pl_module, trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        ends_inside = self.clock.total % self.clock.per_epoch
        if ends_inside and trainer.current_epoch * self.clock.per_epoch + idx + 1 == self.clock.total:
            trainer.should_stop = True

    def _close(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        """The end of a round: tested at its best and at its last weights, and written down."""
        network, data = pl_module.model, trainer.datamodule
        data.read_test_part()
        if trainer.world_size > 1:  # as DDP does before each pass: running statistics are the first process's
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, 0)
        masks = self.masks
        row: dict[str, Any] = {
            "round": self.round,
            "density": masking.density(masks),
            "steps": self._steps(trainer, self.clock.first + self.clock.start),
            "early_stop_step": self.best["step"] if self.best else None,
            "early_stop_val_nll": self.best["val_nll"] if self.best else None,
        }
        last = _copy(network.state_dict())
        if data.test is not None:
            loader = data.test_dataloader()
            row |= {f"test_{k}": v for k, v in pl_module.measure(loader).items()}
            if self.best:
                _put(network.state_dict(), self.best["weights"])
                row |= {f"early_stop_test_{k}": v for k, v in pl_module.measure(loader).items()}
        if self.best:
            _put(network.state_dict(), self.best["weights"])
            self._write_round(trainer)
            _put(network.state_dict(), last)
        row |= {f"density_{name}": masking.density({name: mask}) for name, mask in masks.items()}
        row["dead_layers"] = sum(not mask.any() for mask in masks.values())
        numbers = {k: v for k, v in row.items() if k not in ("round", "steps") and v is not None}
        pl_module.write("round", numbers, step)
        self._show_first_layer(trainer, step)
        self.table.append(row)
        self.best = None
        if trainer.is_global_zero:
            small = packed(last, masks)
            row |= sizes(last, small) | {"retrain": self.retrain, "optimizer": self.optimizer}
            split = data.test or data.train
            rows = split.taken[:64].to(split.source.device)
            ((images, _),) = split.source.stream([Plan(rows, rows, len(rows), 1.0)])
            row |= latencies(copy.deepcopy(network).float().cpu().eval(), data.normalise(images.cpu()))
            self._write_files(trainer, small)

    def _prune(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From one round to the next."""
        self.round += 1
        parameters = {name: p.detach() for name, p in pl_module.model.named_parameters()}
        first, masks = masking.unpack_all(self.of_rounds[0], parameters), {}
        keep = {k: masking.kept_after(int(first[k].count_nonzero()), r, self.round) for k, r in self.rates.items()}
        for names in self._ranked_together(self.rates):
            weights = {name: parameters[name].cpu() for name in names}
            masks |= masking.smallest(weights, {n: self.masks[n] for n in names}, sum(keep[n] for n in names))
        self.masks = {name: masks.get(name, self.masks[name]) for name in self.masks}
        self._keep_masks(trainer)
        if self.retrain == "weights":
            _put(pl_module.model.state_dict(), self.rewind["weights"])
            _put(_beside(pl_module), self.rewind["beside"])
        for optimizer in trainer.optimizers:
            if self.optimizer == "fresh":
                optimizer.state.clear()
            elif self.rewind["optimizer"] is not None:
                optimizer.load_state_dict(_copy(self.rewind["optimizer"]))
        of_rank = self.rewind["memory"][trainer.global_rank] if self.rewind["memory"] else {}
        of_rank = pl.utilities.move_data_to_device(_copy(of_rank), pl_module.device)
        for name, value in (of_rank | _copy(self.rewind["shared"])).items():
            setattr(pl_module, name, value)
        self._apply(pl_module)

    def _ranked_together(self, rates: dict[str, float]) -> list[list[str]]:
        if self.scope == "layers":
            return [[name] for name in rates]
        equal: dict[float, list[str]] = {}
        for name, rate in rates.items():
            equal.setdefault(rate, []).append(name)
        return list(equal.values())

    @torch.no_grad()
    def _apply(self, pl_module: pl.LightningModule) -> None:
        self._bind(pl_module)
        for parameter, mask in zip(self.pruned, self.masks.values(), strict=True):
            parameter.masked_fill_(~mask.to(parameter.device), 0.0)

    def _keep_masks(self, trainer: pl.Trainer) -> None:
        """Those of a new round, which must be the same on all processes."""
        self.of_rounds.append(masking.pack_all(self.masks))
        if trainer.world_size > 1:
            flat = torch.cat([*self.of_rounds[-1].values()]).to(trainer.strategy.root_device)
            if not torch.equal(trainer.strategy.broadcast(flat.clone()), flat):
                raise RuntimeError("the processes have come to different masks: their weights differ")
        for name, mask in self.masks.items():
            if not mask.any():
                self._say(trainer, f"{name} has no weights left: no signal passes through it")

    # What is shown and left

    def shown(self) -> dict[str, float]:
        """For the progress bar."""
        return {"round": self.round, "density": self.density_now} if self.masks else {}

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        return {"rounds": self.table}

    @staticmethod
    def _folder(trainer: pl.Trainer) -> Path | None:
        checkpoint = trainer.checkpoint_callback
        ours = isinstance(checkpoint, RunCheckpoint) and checkpoint.folder is not None
        return checkpoint.folder.parent if ours and trainer.is_global_zero else None

    def _write_round(self, trainer: pl.Trainer) -> None:
        """The best weights of the round, as a checkpoint that every verb can open."""
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
        if folder := self._folder(trainer):
            content["config"] = trainer.checkpoint_callback.config
            path = folder / "rounds" / f"round_{self.round:02d}.ckpt"
            write_tensors(path, content)

    def _write_files(self, trainer: pl.Trainer, small: dict[str, Any]) -> None:
        folder = self._folder(trainer)
        if folder is None:
            return
        about = {"network": type(trainer.lightning_module.model).__name__, "retrain": self.retrain}
        step = self._steps(trainer, max(self.clock.skipped, self.clock.start))
        Ticket(self.rewind["weights"], self.of_rounds, step, about).save(folder / "ticket.pt")
        write_tensors(folder / "packed.pt", small)
        arrays = {f"{n}/{k}": mask.numpy() for n, masks in enumerate(self.of_rounds) for k, mask in masks.items()}
        # for reports, which compare seeds and do without torch
        write_whole(folder / "rounds" / "masks.npz", lambda file: np.savez(file, **arrays))
        text = io.StringIO()
        keys = list(dict.fromkeys(key for row in self.table for key in row))
        writer = csv.DictWriter(text, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.table)
        write_whole(folder / "rounds.csv", lambda file: file.write(text.getvalue().encode()))
        write_whole(folder / "rounds.svg", lambda file: file.write(self._figure().encode()))
        self._write_by_density(folder / "by_density")

    def _write_by_density(self, folder: Path) -> None:
        """A run for TensorBoard whose x axis is 100 times the percentage of weights left: written anew each time."""
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        with SummaryWriter(str(folder)) as board:
            for row in self.table:
                for key in ("test_accuracy", "early_stop_test_accuracy", "early_stop_step"):
                    if row.get(key) is not None:
                        board.add_scalar(f"by_density/{key}", row[key], round(10_000 * row["density"]))
            board.add_text("rounds", self._as_text())

    def _as_text(self) -> str:
        """The table of rounds in Markdown."""
        shown = {"round": "d", "density": ".4f", "early_stop_step": "d", "early_stop_test_accuracy": ".4f"}
        shown |= {"test_accuracy": ".4f", "dead_layers": "d"}
        lines = ["| " + " | ".join(shown) + " |", "|---" * len(shown) + "|"]
        for row in self.table:
            cells = ("" if row.get(key) is None else format(row[key], kind) for key, kind in shown.items())
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def _show_first_layer(self, trainer: pl.Trainer, step: int) -> None:
        """How many weights each pixel has left, where the first layer is linear: as a picture."""
        data, (name, mask) = trainer.datamodule, next(iter(self.masks.items()))
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if mask.ndim != 2 or mask.shape[1] != data.channels * data.image_size**2 or not trainer.is_global_zero:
            return
        left = mask.sum(0).view(data.channels, data.image_size, data.image_size).sum(0, keepdim=True).float()
        for board in boards:
            board.experiment.add_image(f"round/left_of_{name}", left / left.max().clamp(min=1), step)

    def _figure(self) -> str:
        def line(label: str, key: str) -> Line:
            rows = [row for row in self.table if row.get(key) is not None]
            return Line(label, [100 * row["density"] for row in rows], [100 * row[key] for row in rows])

        lines = [line("at early stop", "early_stop_test_accuracy"), line("at the end", "test_accuracy")]
        lines = [one for one in lines if one.x]
        return plot("Test accuracy by density", lines, "weights left, %", "accuracy, %", log_x=True)

    # Resume

    def state_dict(self) -> dict[str, Any]:
        return {
            "round": self.round,
            "of_rounds": self.of_rounds,
            "shapes": {name: list(mask.shape) for name, mask in self.masks.items()},
            "rewind": self.rewind,
            "best": self.best,
            "table": self.table,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round, self.rewind, self.best, self.table = (state[k] for k in ("round", "rewind", "best", "table"))
        self.of_rounds, shapes = state["of_rounds"], state["shapes"]
        last = self.of_rounds[-1] if self.of_rounds else {}
        self.masks = {name: masking.unpack(mask, shapes[name]) for name, mask in last.items()}


def _copy(value: Any) -> Any:
    """A copy on the CPU, at any depth, that shares nothing with what goes on training."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list | tuple) else value


@torch.no_grad()
def _put(mine: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Writes weights into a module's own tensors, parameters and buffers."""
    for name, tensor in mine.items():
        tensor.copy_(weights[name])


def _beside(pl_module: pl.LightningModule) -> dict[str, Tensor]:
    """What a method trains beside its network."""
    return {name: tensor for name, tensor in pl_module.state_dict().items() if not name.startswith("model.")}


def _of_ranks(trainer: pl.Trainer, mine: dict[str, Any]) -> list[dict[str, Any]]:
    if trainer.world_size == 1:
        return [mine]
    everyones: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyones, mine)
    return everyones
