"""Tests each round of pruning when it ends, with its best weights and with its last weights."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from distill_lightning import masks as masking
from distill_lightning.data.plans import BatchPlan
from distill_lightning.lottery.packing import latencies
from distill_lightning.lottery.rewinding import copied, put
from distill_lightning.methods.base import Method


@dataclass(frozen=True)
class RoundEnding:
    """A round that has ended.

    Args:
        number: the number of the round, from 0.
        masks: the masks that the round was trained with.
        best: the weights of the method, the step and the validation loss (nll, nats) of its best validation; None
            without validation.
        steps: the number of optimizer steps of a whole training, T.
    """

    number: int
    masks: masking.Masks
    best: dict[str, Any] | None
    steps: int


def measure_round(
    trainer: pl.Trainer, method: Method, ending: RoundEnding, write_best: Callable[[], None]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Tests a round. This is a collective: all processes call it together.

    Args:
        trainer: the trainer of the run.
        method: the method, with the last weights of the round. It has the same weights afterwards.
        ending: the round.
        write_best: is called while the network has the best weights of the round.

    Returns:
        The round's row of the table of rounds, and a copy of the last weights.
    """
    network, data, best = method.model, method.image_data, ending.best
    data.read_test_part()
    method.share_buffers()  # before they are copied
    row: dict[str, Any] = {
        "round": ending.number,
        "density": masking.density(ending.masks),
        "steps": ending.steps,
        "early_stop_step": best["step"] if best else None,
        "early_stop_val_nll": best["val_nll"] if best else None,
    }
    last: dict[str, Tensor] = copied(network.state_dict())
    loader = data.test_dataloader() if data.test is not None else None
    limit = method.trainer.limit_test_batches
    if loader is not None:
        row |= {f"test_{k}": v for k, v in method.measure(loader, limit).items()}
    if best:
        now = copied(method.state_dict())
        put(method.state_dict(), best["weights"])
        if loader is not None:
            row |= {f"early_stop_test_{k}": v for k, v in method.measure(loader, limit).items()}
        write_best()
        put(method.state_dict(), now)
    row |= {f"density_{name}": masking.density({name: mask}) for name, mask in ending.masks.items()}
    row["dead_layers"] = sum(not mask.any() for mask in ending.masks.values())
    return row, last


def time_network(method: Method) -> dict[str, float]:
    """Seconds of a dense and a sparse forward pass on the CPU, for up to 64 pictures of the data. See ``latencies``."""
    data = method.image_data
    split = data.test or data.training_split
    ((images, _),) = split.source.stream([BatchPlan.of_rows(split.taken[:64].to(split.source.device))])
    assert data.normaliser is not None
    return latencies(copy.deepcopy(method.model).float().cpu().eval(), data.normaliser(images.cpu()))
