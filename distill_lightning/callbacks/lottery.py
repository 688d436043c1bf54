"""Lottery tickets: train, prune, rewind, train again, in one fit (Frankle & Carbin 2019, arXiv:1803.03635, section 2).

    round 0     train the whole network for T steps from theta_0; keep a copy of theta_k at step k
    prune       remove the share p of the remaining weights with the smallest magnitude; the masks m mark the rest
    round r     set the weights to m * theta_k, and the schedule and the order of samples to step k; train T - k steps

T is the length of the run (``trainer.max_epochs``), or the option ``length``. ``retrain`` is one of

    weights         rewind the weights and the schedule to step k (k = 0 in the paper; k > 0 in Frankle et al. 2019,
                    arXiv:1912.05671)
    learning_rate   keep the trained weights, rewind the schedule (Renda et al. 2020, arXiv:2003.02389)
    fine_tune       keep the trained weights, continue with the last learning rate

The weights of Linear and convolution layers are pruned. The last Linear layer is pruned at half the rate of the others
(appendix G of the paper). Biases and norms are pruned only if the option ``also`` names them. A rate is a share of the
weights that the previous round has left. With the scope "global", layers of equal rate are ranked together. The number
of weights that a round keeps is computed from the number in round 0, not from the round before (masks.py).

Parameters that a method trains beside the network (heads, peers) are rewound with it, and are never pruned. A ticket of
step k is trained from step k on. A ticket with new initial weights is trained from step 0 on.

Pruned weights are exactly zero. Weights are masked after every optimizer step. Gradients are masked before clipping, so
that they do not affect momentum, weight decay or the clipping norm. Files hold pruned weights as zeros, and their
keys are those of the unpruned network.

With ``at_start`` the network is pruned once, before its first step, to ``density``, by scores of its initial weights
(lottery/at_start.py).

Each round ends with two tests: one of the weights with the lowest validation loss (nll), which are written to
rounds/round_NN.ckpt, and one of the last weights. Pruning ranks the last weights. To validate every n steps, set
trainer.val_check_interval to n and check_val_every_n_epoch to null. checkpoints/best.ckpt is the best of all rounds,
which may be the whole network.

The checkpoint keeps the packed masks; theta_k with the buffers; the method's memory of every rank at step k; the
optimizer's state at step k if ``optimizer`` is "kept"; the best weights of the running round; and the table of rounds.
A run can be resumed at any step with bitwise the same result. The weights are pruned when the first batch of the next
round arrives, so that a checkpoint from the end of a round holds the trained network. Under DDP every process computes
the masks from the same weights, and the processes compare them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from distill_lightning import masks as masking
from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.distributed import from_first_into
from distill_lightning.errors import InputError
from distill_lightning.lightning_internals import dump_checkpoint
from distill_lightning.lottery.at_start import AtStart, masks_at_start
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
from distill_lightning.lottery.timeline import PruningTimeline, batches_in_steps, batches_of
from distill_lightning.methods.base import Method, trained_batches
from distill_lightning.ranges import BelowOne, CountOrZero, OpenFraction
from distill_lightning.recorded import Recorded
from distill_lightning.tensor_files import write_tensors
from distill_lightning.values import Batch, ShowsNumbers, Summarised, TimelineGiver


class Lottery(Recorded, Callback, TimelineGiver, ShowsNumbers, Summarised):
    """Finds a lottery ticket, or trains one.

    Args:
        rounds: the number of times that the network is pruned; 0 trains a ticket without further pruning.
        linear: the share of the remaining weights of linear layers that each round prunes.
        conv: the same for convolutions.
        output: the same for the last linear layer; half of ``linear`` by default.
        density: the share of all prunable weights that the last round keeps. Weights that a ticket has
            pruned count as prunable. All rates are scaled to reach it. With 1 round this is one-shot pruning.
        scope: "layers" ranks the weights of each layer alone, "global" ranks all layers of equal rate together.
        leave_out: names of modules whose weights are not pruned. Modules inside a named module are left out too.
        also: the rates of other parameters to prune, by the parameter's name.
        retrain: what later rounds start from. "weights" rewinds the weights and the schedule to step k. "learning_rate"
            keeps the trained weights and rewinds the schedule. "fine_tune" keeps the weights and the last rate.
        rewind_to: k, as "500 steps" or "2 epochs". It has no effect with "fine_tune", which continues from the end.
        length: T, as "50000 steps" or "20 epochs"; the length of the run by default.
        optimizer: the state of the optimizer at the start of a later round. "fresh" is an empty state. "kept" is the
            state at step k, or, if the trained weights are kept, the state at the end of the previous round.
        order: whether later rounds use the same order of samples as round 0 or a new one.
        ticket: the ticket.pt of another run, to start from.
        ticket_round: the round whose masks are taken from the ticket; the last round by default.
        weights: "rewound" takes the ticket's weights. "reinitialised" takes the initial weights of this run's seed,
            which is the control experiment of the paper; give it another seed than the search had.
        mask: "found" takes the ticket's masks, "shuffled" shuffles them within each layer, "random" draws the same
            number of weights at random from all layers.
        at_start: prunes once, before training, to ``density``, with ``rounds`` 0: "snip" by |w dL/dw| on the first
            batch, "synflow" by the paths through a weight, "magnitude" by its size, "random" by chance. All layers
            share one ranking. By default, training comes first.

    Raises:
        InputError: an option is out of its range, an option for tickets is given without a ticket, or ``at_start`` is
            given with rounds or a ticket, or without a density.
    """

    later_options: ClassVar[Mapping[str, Any]] = {"at_start": None}

    validation_decides = True
    """The times of validation change the result: each round keeps the weights of its best validation."""

    def __init__(
        self,
        rounds: CountOrZero = 15,
        linear: BelowOne = 0.2,
        conv: BelowOne = 0.2,
        output: BelowOne | None = None,
        density: OpenFraction | None = None,
        scope: Literal["layers", "global"] = "layers",
        leave_out: list[str] | None = None,
        also: dict[str, BelowOne] | None = None,
        retrain: Literal["weights", "learning_rate", "fine_tune"] = "weights",
        rewind_to: str = "0 steps",
        length: str | None = None,
        optimizer: Literal["fresh", "kept"] = "fresh",
        order: Literal["same", "new"] = "same",
        ticket: str | None = None,
        ticket_round: CountOrZero | None = None,
        weights: Literal["rewound", "reinitialised"] = "rewound",
        mask: Literal["found", "shuffled", "random"] = "found",
        at_start: AtStart | None = None,
    ) -> None:
        output = linear / 2 if output is None else output
        if at_start is not None and (rounds or ticket is not None or density is None):
            raise InputError(f"Lottery.at_start is {at_start}: give a density, rounds 0 and no ticket with it")
        if rounds == 0 and ticket is None and at_start is None:
            raise InputError(f"Lottery.rounds is {rounds}: it must be 1 or more, or 0 with a ticket or at_start")
        if ticket is None and (weights != "rewound" or mask != "found" or ticket_round is not None):
            raise InputError("Lottery: ticket_round, weights and mask say what to do with a ticket: give a ticket")
        self.rule = PruningRule(rounds, linear, conv, output, density, scope, leave_out or [], also or {})
        self.retrain, self.rewind_to, self.length, self.optimizer = retrain, rewind_to, length, optimizer
        self.order, self.ticket, self.ticket_round = order, ticket, ticket_round
        self.start_weights, self.start_mask, self.at_start = weights, mask, at_start
        self.opened: Opened | None = None
        self._timeline: PruningTimeline | None = None
        self._forget()

    def _forget(self) -> None:
        """Resets everything that the checkpoint keeps to its value before training."""
        self.round = -1
        self.masks: masking.Masks = {}
        self.of_rounds: list[dict[str, Tensor]] = []  # the packed masks of each round
        self.rewind: RewindPoint | None = None
        self.best: dict[str, Any] | None = None
        self.table: list[dict[str, Any]] = []

    # Before training

    @property
    def timeline(self) -> PruningTimeline:
        """The rounds of the running fit; available after ``setup``."""
        assert self._timeline is not None
        return self._timeline

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        method = _method(pl_module)
        refuse_what_breaks_rounds(trainer)
        method.optimization.freeze(method.model)
        method.check_networks(method.image_data)  # lazy layers have no weights to prune before this
        self._forget()  # drops what an earlier fit left; a checkpoint is loaded after this
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
        samples = data.samples_for(method.needs)  # not for what an earlier fit needed
        per_epoch, together = trained_batches(trainer, samples.batches), trainer.accumulate_grad_batches
        assert trainer.max_epochs is not None
        first = trainer.max_epochs * per_epoch
        if self.length:
            first = batches_of(self.length, "length", per_epoch, together)
        start = 0
        if self.opened and self.start_weights == "rewound":
            start = batches_in_steps(self.opened.step, per_epoch, together)
        skipped = max(start, batches_of(self.rewind_to, "rewind_to", per_epoch, together))
        if skipped >= first:
            late = self.opened is not None and skipped == start
            what = f"the ticket is of step {start // together}" if late else f"Lottery.rewind_to is {self.rewind_to}"
            raise InputError(f"{what}, but a round has {first // together} steps: rewind to one of them")
        # fine-tuning continues from the trained weights for a whole round: no batches are skipped
        skipped = 0 if self.retrain == "fine_tune" else skipped
        for batches in (first, skipped):
            if (rest := batches % per_epoch) and (per_epoch % together or rest % together):
                raise InputError(
                    f"Lottery: a round begins or ends after {rest} of an epoch's {per_epoch} batches, where "
                    f"accumulate_grad_batches {together} ends no step, or not in every round: use whole epochs"
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
                f"validation runs every {every // together} steps, and so at different steps in each round of "
                f"{timeline.later // together}: early stops cannot be compared"
            )
        return timeline

    # Hooks on the optimizer

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.hooks = [o.register_step_post_hook(lambda *_: self._mask_weights()) for o in trainer.optimizers]
        self._bind(_method(pl_module))
        is_control = self.start_weights == "reinitialised" and self.start_mask == "found"
        if self.round < 0 and self.opened and is_control:
            self.opened.refuse_own_weights(_method(pl_module).model)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for hook in self.hooks:
            hook.remove()

    def _bind(self, method: Method) -> None:
        """Pairs the pruned parameters with their masks. The masks get the dtype and the device of the parameters."""
        parameters = dict(method.model.named_parameters())
        self.pruned = [parameters[name] for name in self.masks]
        self.factors = [
            torch.empty_like(p, requires_grad=False).copy_(mask)  # with the memory layout of the parameter
            for mask, p in zip(self.masks.values(), self.pruned, strict=True)
        ]
        self.density_now = masking.density(self.masks) if self.masks else 1.0

    @torch.no_grad()
    def _mask_weights(self) -> None:
        if self.pruned:
            torch._foreach_mul_([p.data for p in self.pruned], self.factors)

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        # before clipping: gradients of pruned weights must not count in the norm
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
            self._begin(method, batch)
        elif number > self.round:
            self._close(trainer, method, trainer.global_step + 1)
            self._prune(trainer, method)
        if self.rewind is None and within >= self.timeline.skipped:
            kept = trainer.optimizers[0] if self.optimizer == "kept" and self.retrain == "weights" else None
            self.rewind = rewind_point(method, kept, beside=self.retrain == "weights")

    def _begin(self, method: Method, batch: Batch) -> None:
        """Before the first step of round 0: makes the masks, which are all ones, those of the ticket, or those that
        are found at the start.
        """
        found = self.opened.masks if self.opened else {}
        self.round, (_, first) = 0, first_masks(dict(method.model.named_parameters()), self.rates, found)
        if self.at_start is not None:
            assert self.rule.density is not None
            seen = batch._replace(images=method.preprocessed(batch.images))  # as the network sees them
            first = masks_at_start(self.at_start, method.model, first, self.rule.density, seen)
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
            self.best = {
                "val_nll": value,
                "step": self._step_in_round(trainer),
                "weights": copied(pl_module.state_dict()),  # with what is trained beside the network
            }

    def _done(self, trainer: pl.Trainer) -> int:
        """The number of batches since training began."""
        return (
            trainer.current_epoch * self.timeline.batches_per_epoch
            + trainer.fit_loop.epoch_loop.batch_progress.current.ready
        )

    def _step_in_round(self, trainer: pl.Trainer) -> int:
        """The number of optimizer steps in this round. The steps before the rewind point count too."""
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
        """Ends a round: tests its best and its last weights, and writes the results."""
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
        """Starts the next round: prunes and rewinds."""
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
        """Records the masks of a new round, and compares them between the processes."""
        self.of_rounds.append(masking.pack_all(self.masks))
        flat = torch.cat([*self.of_rounds[-1].values()]).to(method.device)
        if not torch.equal(from_first_into(flat.clone()), flat):
            raise RuntimeError("the processes have computed different masks: their weights differ")
        for name, mask in self.masks.items():
            if not mask.any():
                warn(f"{name} has no weights left: no signal passes through it")

    # What is shown and written

    def numbers(self) -> dict[str, float]:
        """The number of the running round, and the density of its masks."""
        return {"round": self.round, "density": self.density_now} if self.masks else {}

    def summary(self) -> dict[str, Any]:
        """The table of rounds, for summary.json."""
        return {"rounds": self.table}

    def _write_round(self, trainer: pl.Trainer) -> None:
        """Writes the best weights of the round as a checkpoint that every command can open."""
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
            "ticket": self.opened.digest if self.opened else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # older checkpoints do not name their ticket
        if self.opened and state.get("ticket", self.opened.digest) != self.opened.digest:
            raise InputError(f"the ticket {self.ticket} has changed since the run began: resume it with the same")
        self.round, self.rewind, self.best, self.table = (state[k] for k in ("round", "rewind", "best", "table"))
        self.of_rounds, shapes = state["of_rounds"], state["shapes"]
        last = self.of_rounds[-1] if self.of_rounds else {}
        self.masks = {name: masking.unpack(mask, shapes[name]) for name, mask in last.items()}


def _method(pl_module: pl.LightningModule) -> Method:
    if not isinstance(pl_module, Method):
        raise InputError(f"Lottery works with the methods of this program, not with {type(pl_module).__name__}")
    return pl_module


def run_checkpoint(trainer: pl.Trainer) -> RunCheckpoint | None:
    """The callback that knows the run's folder; None if there is no run folder, or if this is not the first process."""
    for checkpoint in trainer.checkpoint_callbacks:  # the user may have added others
        if isinstance(checkpoint, RunCheckpoint) and checkpoint.folder is not None and trainer.is_global_zero:
            return checkpoint
    return None
