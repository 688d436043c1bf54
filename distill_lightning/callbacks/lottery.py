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

from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from distill_lightning import masks as masking
from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.distributed import from_first_into
from distill_lightning.errors import InputError
from distill_lightning.lightning_internals import dump_checkpoint
from distill_lightning.lottery.packing import packed, sizes
from distill_lightning.lottery.rates import PruningRule, first_masks
from distill_lightning.lottery.rewinding import RewindPoint, copied, put, rewind, rewind_point
from distill_lightning.lottery.round_files import write_round_files
from distill_lightning.lottery.round_tests import RoundEnding, measure_round, time_network
from distill_lightning.lottery.surroundings import (
    batches_between_validations,
    refuse_what_breaks_rounds,
    show_first_layer,
    warn,
)
from distill_lightning.lottery.tickets import Opened, Ticket, open_ticket
from distill_lightning.lottery.timeline import PruningTimeline, batches_of
from distill_lightning.methods.base import Method, trained_batches
from distill_lightning.tensor_files import write_tensors
from distill_lightning.values import Batch, ShowsNumbers, Summarised, TimelineGiver


class Lottery(Callback, TimelineGiver, ShowsNumbers, Summarised):
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

    validation_decides = True
    """Each round keeps the weights of its best validation."""

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
        self.rule = PruningRule(rounds, linear, conv, output, density, scope, leave_out or [], also or {})
        self.retrain, self.rewind_to, self.length, self.optimizer = retrain, rewind_to, length, optimizer
        self.order, self.ticket, self.ticket_round = order, ticket, ticket_round
        self.start_weights, self.start_mask = weights, mask
        self.opened: Opened | None = None
        self._timeline: PruningTimeline | None = None
        self._forget()

    def _forget(self) -> None:
        """What the checkpoint keeps, as it is before training."""
        self.round = -1
        self.masks: masking.Masks = {}
        self.of_rounds: list[dict[str, Tensor]] = []  # packed masks
        self.rewind: RewindPoint | None = None
        self.best: dict[str, Any] | None = None
        self.table: list[dict[str, Any]] = []

    # Before training

    @property
    def timeline(self) -> PruningTimeline:
        """Of the running fit; there after ``setup``."""
        assert self._timeline is not None
        return self._timeline

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        method = _method(pl_module)
        refuse_what_breaks_rounds(trainer)
        self._forget()  # what an earlier fit left; a checkpoint is read after this
        self.opened = None
        if self.ticket is not None:
            self.opened = open_ticket(self.ticket, self.ticket_round, self.start_mask, method.model)
        self._timeline = self._make_timeline(trainer, method)
        self.asked_epochs, trainer.fit_loop.max_epochs = trainer.max_epochs, self.timeline.epochs_in_all
        self.rates = self.rule.rates(method.model, self.opened.masks if self.opened else {})

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            trainer.fit_loop.max_epochs = self.asked_epochs

    def _make_timeline(self, trainer: pl.Trainer, method: Method) -> PruningTimeline:
        data = method.image_data
        per_epoch, together = trained_batches(trainer, data.samples.batches), trainer.accumulate_grad_batches
        assert trainer.max_epochs is not None
        first = trainer.max_epochs * per_epoch
        if self.length:
            first = batches_of(self.length, "length", per_epoch, together)
        start = self.opened.step * together if self.opened and self.start_weights == "rewound" else 0
        skipped = max(start, batches_of(self.rewind_to, "rewind_to", per_epoch, together))
        if skipped >= first:
            late = self.opened is not None and skipped == start
            what = f"the ticket is of step {start // together}" if late else f"Lottery.rewind_to is {self.rewind_to}"
            raise InputError(f"{what}, but a round has {first // together} steps: rewind to one of them")
        # what is kept is trained on from the end: nothing is skipped but in the schedule
        skipped = 0 if self.retrain == "fine_tune" else skipped
        for batches in (first, skipped):
            if (rest := batches % per_epoch) and (per_epoch % together or rest % together):
                raise InputError(
                    f"Lottery: a round begins or ends after {rest} of an epoch's {per_epoch} batches, where "
                    f"accumulate_grad_batches {together} ends no step, or not in each: use whole epochs"
                )
        if self.order == "new" and skipped and method.needs.repeats_last_batch:
            raise InputError(
                "Lottery: a method that repeats the last batch and rewinds to a later step needs order same"
            )
        timeline = PruningTimeline(
            batches_per_epoch=per_epoch,
            first=first - start,
            start=start,
            skipped=skipped,
            later=first - skipped,
            rounds=self.rule.rounds,
            has_new_orders=self.order == "new",
            stays_at_end=self.retrain == "fine_tune",
            batches_per_step=together,
        )
        every = batches_between_validations(trainer, per_epoch)
        if data.val_size and self.rule.rounds and (timeline.first % every or timeline.later % every):
            warn(
                f"validation comes every {every // together} steps, at others in each round of "
                f"{timeline.later // together}: early stops cannot be compared"
            )
        return timeline

    # Hooks on the optimizer

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.hooks = [o.register_step_post_hook(lambda *_: self._mask_weights()) for o in trainer.optimizers]
        self._bind(_method(pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for hook in self.hooks:
            hook.remove()

    def _bind(self, method: Method) -> None:
        """Pairs the network's parameters with their masks, in the parameters' own type."""
        parameters = dict(method.model.named_parameters())
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
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        method = _method(pl_module)
        at = trainer.current_epoch * self.timeline.batches_per_epoch + batch_idx
        number, within = self.timeline.round_of(at)
        if self.round < 0:
            self._begin(method)
        elif number > self.round:
            self._close(trainer, method, trainer.global_step + 1)
            self._prune(trainer, method)
        if self.rewind is None and within >= self.timeline.skipped:
            kept = trainer.optimizers[0] if self.optimizer == "kept" and self.retrain == "weights" else None
            self.rewind = rewind_point(method, kept, beside=self.retrain == "weights")

    def _begin(self, method: Method) -> None:
        """The first step of all: everything is kept, or what a ticket keeps."""
        found = self.opened.masks if self.opened else {}
        self.round, (_, first) = 0, first_masks(dict(method.model.named_parameters()), self.rates, found)
        self.masks = {**found, **first}
        if self.opened and self.start_weights == "rewound":
            put(method.model.state_dict(), self.opened.weights)
        self._keep_masks(method)
        self._apply(method)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or self.round < 0:
            return
        value = float(trainer.callback_metrics["val/nll"])
        if self.best is None or value < self.best["val_nll"]:
            assert isinstance(pl_module.model, nn.Module)
            self.best = {
                "val_nll": value,
                "step": self._step_in_round(trainer),
                "weights": copied(pl_module.model.state_dict()),
            }

    def _done(self, trainer: pl.Trainer) -> int:
        """Batches since training began."""
        return trainer.current_epoch * self.timeline.batches_per_epoch + trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _step_in_round(self, trainer: pl.Trainer) -> int:
        """Optimizer steps since the round's beginning, rewound ones counted."""
        return self.timeline.steps(self.timeline.round_of(self._done(trainer) - 1)[1] + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._done(trainer) >= self.timeline.total and len(self.table) == self.round:
            self._close(trainer, _method(pl_module), trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        per_epoch, total = self.timeline.batches_per_epoch, self.timeline.total
        if total % per_epoch and trainer.current_epoch * per_epoch + batch_idx + 1 == total:
            trainer.should_stop = True

    def _close(self, trainer: pl.Trainer, method: Method, step: int) -> None:
        """The end of a round: tested at its best and at its last weights, and written down."""
        assert self.rewind is not None
        ending = RoundEnding(self.round, self.masks, self.best, self.timeline.steps(self.timeline.length))
        row, last = measure_round(trainer, method, ending, lambda: self._write_round(trainer))
        numbers = {k: v for k, v in row.items() if k not in ("round", "steps") and v is not None}
        method.log_metrics("round", numbers, step)
        show_first_layer(trainer, method.image_data, self.masks, step)
        self.table.append(row)
        self.best = None
        if trainer.is_global_zero:
            small = packed(last, self.masks)
            row |= sizes(last, small) | {"retrain": self.retrain, "optimizer": self.optimizer}
            row |= time_network(method)
            self._write_files(trainer, method.model, small)

    def _prune(self, trainer: pl.Trainer, method: Method) -> None:
        """From one round to the next."""
        assert self.rewind is not None
        self.round += 1
        parameters = {name: p.detach() for name, p in method.model.named_parameters()}
        first = masking.unpack_all(self.of_rounds[0], parameters)
        self.masks = self.rule.prune(self.rates, parameters, first, self.masks, self.round)
        self._keep_masks(method)
        rewind(method, self.rewind, trainer.optimizers, self.retrain == "weights", self.optimizer == "fresh")
        self._apply(method)

    @torch.no_grad()
    def _apply(self, method: Method) -> None:
        self._bind(method)
        for parameter, mask in zip(self.pruned, self.masks.values(), strict=True):
            parameter.masked_fill_(~mask.to(parameter.device), 0.0)

    def _keep_masks(self, method: Method) -> None:
        """Those of a new round, which must be the same on all processes."""
        self.of_rounds.append(masking.pack_all(self.masks))
        flat = torch.cat([*self.of_rounds[-1].values()]).to(method.device)
        if not torch.equal(from_first_into(flat.clone()), flat):
            raise RuntimeError("the processes have come to different masks: their weights differ")
        for name, mask in self.masks.items():
            if not mask.any():
                warn(f"{name} has no weights left: no signal passes through it")

    # What is shown and left

    def numbers(self) -> dict[str, float]:
        """The round and its density."""
        return {"round": self.round, "density": self.density_now} if self.masks else {}

    def summary(self) -> dict[str, Any]:
        """The table of rounds."""
        return {"rounds": self.table}

    def _write_round(self, trainer: pl.Trainer) -> None:
        """The best weights of the round, as a checkpoint that every verb can open."""
        content = dump_checkpoint(trainer, weights_only=True)
        if checkpoint := run_checkpoint(trainer):
            content["config"] = checkpoint.config
            write_tensors(checkpoint.run_folder / "rounds" / f"round_{self.round:02d}.ckpt", content)

    def _write_files(self, trainer: pl.Trainer, network: nn.Module, small: dict[str, Any]) -> None:
        checkpoint = run_checkpoint(trainer)
        if checkpoint is None or self.rewind is None:
            return
        about = {"network": type(network).__name__, "retrain": self.retrain}
        step = self.timeline.steps(max(self.timeline.skipped, self.timeline.start))
        ticket = Ticket(self.rewind["weights"], self.of_rounds, step, about)
        write_round_files(checkpoint.run_folder, self.table, ticket, small, self.of_rounds)

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


def _method(pl_module: pl.LightningModule) -> Method:
    if not isinstance(pl_module, Method):
        raise InputError(f"Lottery prunes the methods of this program, not {type(pl_module).__name__}")
    return pl_module


def run_checkpoint(trainer: pl.Trainer) -> RunCheckpoint | None:
    """Knows the run's folder; None where no run folder is written, and on other processes than the first."""
    checkpoint = trainer.checkpoint_callback
    if isinstance(checkpoint, RunCheckpoint) and checkpoint.folder is not None and trainer.is_global_zero:
        return checkpoint
    return None
