"""How signals and gradients pass through the layers of a network (Glorot & Bengio 2010; He et al. 2015,
arXiv:1502.01852, section 2.2).

For layer l with the weight W_l, at an optimizer step:

    gradient_norm   |dL/dW_l|, after all batches of the step were added and all processes averaged, without the factor
                    of 16-bit training, before clipping
    update_ratio    |W_l after the step - W_l before| / |W_l before|
    dead_units      the share of rows of dL/dW_l that are exactly 0: units that no sample of the step changes. A unit
                    with ReLU is one if it is 0 for all samples
    activation_rms  the root of the mean square of all numbers that reach the layer
    activation_std  the same of their deviations from each unit's mean over the samples, and in a convolution the
                    places: what distinguishes one picture from another

Norms are L2, in float64. The activations are those of one more pass of the network over the last batch of the step, in
the first process; in training mode, with the same precision, with copies of the running statistics of batch norm and
with random numbers of its own, so that training does not change. The layers are those with a weight of two dimensions
or more, in the order in which the network defines them. Under accumulation, a step is an optimizer step.
"""

import math
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor, nn

from distill_lightning.callbacks.scaling import gradient_scale
from distill_lightning.depth_figures import MOST_LINES, Measurement, draw, factor_by_layer
from distill_lightning.errors import InputError
from distill_lightning.files import atomic_write
from distill_lightning.lightning_internals import completes_no_step
from distill_lightning.methods.base import Method
from distill_lightning.methods.plain_batches import as_batch
from distill_lightning.ranges import Count
from distill_lightning.recorded import Recorded

FILE = "gradient_flow.svg"


class GradientFlow(Recorded, Callback):
    """Logs the gradient, the update and the activations of each layer at some steps, and draws them by depth.

    It logs train/gradient_norm/LAYER, and likewise update_ratio, dead_units, activation_rms and activation_std; and
    train/gradient_factor, by which the gradient grows in each layer towards the input. The figure is gradient_flow.svg
    in the run's folder, and a picture in TensorBoard.

    Args:
        every_n_steps: measures at the first optimizer step and then at every n-th.

    Raises:
        InputError: ``every_n_steps`` is out of range. When the fit starts: the network has no layer with a weight.
    """

    def __init__(self, every_n_steps: Count = 100) -> None:
        self.every_n_steps = every_n_steps
        self._forget()

    def _forget(self) -> None:
        self.measured: dict[int, dict[str, list[float]]] = {}
        self.count = 0
        self.batch: Any = None
        self.before: dict[str, Tensor] = {}
        self.now: dict[str, list[float]] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":  # drops what an earlier fit left; a checkpoint is loaded after this
            self._forget()
            if not dict(weighted_layers(_network(pl_module))):
                raise InputError("GradientFlow: the network has no layer with a weight of two dimensions or more")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch = batch

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        step = trainer.global_step + 1  # the one that this optimizer step completes
        if step > 1 and step % self.every_n_steps:
            return
        assert isinstance(pl_module, Method)
        layers = dict(weighted_layers(pl_module.model))
        self.before = {name: weight.detach().clone() for name, (_, weight) in layers.items()}
        gradients = [weight.grad for _, weight in layers.values()]
        scale = gradient_scale(trainer, optimizer)
        self.now = {
            "gradient_norm": [math.nan if g is None else norm(g) / scale for g in gradients],
            "dead_units": [math.nan if g is None else share_of_zero_rows(g) for g in gradients],
        }
        images = pl_module.preprocessed(as_batch(self.batch).images).contiguous(memory_format=pl_module.memory_format)
        with trainer.precision_plugin.forward_context():
            reached = activations(pl_module.model, images)
        for place, name in enumerate(("activation_rms", "activation_std")):
            self.now[name] = [reached[layer][place] if layer in reached else math.nan for layer in layers]

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batch = None
        if not self.before or completes_no_step(trainer):
            return
        assert isinstance(pl_module, Method)
        layers = dict(weighted_layers(pl_module.model))
        self.now["update_ratio"] = [
            norm(weight - self.before[name]) / max(norm(self.before[name]), 1e-300)
            for name, (_, weight) in layers.items()
        ]
        now, self.now, self.before = self.now, {}, {}
        values = {f"{k}/{n}": v for k, all_ in now.items() for n, v in zip(layers, all_, strict=True)}
        values["gradient_factor"] = factor_by_layer(now["gradient_norm"])
        step = trainer.global_step
        pl_module.log_metrics("train", {k: v for k, v in values.items() if not math.isnan(v)}, step)
        self._keep(step, now)
        if self.count & (self.count - 1) == 0:  # drawing takes half a second, so not each time
            self._draw(trainer, step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.count & (self.count - 1):
            self._draw(trainer, trainer.global_step)

    def _keep(self, step: int, now: dict[str, list[float]]) -> None:
        """Keeps the first, the last and some measurements between them, for the figure."""
        self.measured[step] = now
        self.count += 1
        if len(self.measured) > MOST_LINES:
            steps = list(self.measured)
            self.measured = {s: self.measured[s] for s in [*steps[:-1:2], steps[-1]]}

    def _draw(self, trainer: pl.Trainer, step: int) -> None:
        if not trainer.is_global_zero:
            return
        measured: dict[int, Measurement] = {**self.measured}
        for board in trainer.loggers:
            if isinstance(board, TensorBoardLogger):
                pixels = np.asarray(Image.open(BytesIO(draw(measured, "png"))).convert("RGB"))
                board.experiment.add_image("train/gradient_flow", pixels, step, dataformats="HWC")
        folder = next((found for board in trainer.loggers if (found := getattr(board, "log_dir", None))), None)
        if folder is not None:
            drawn = draw(measured, "svg")
            atomic_write(Path(folder) / FILE, lambda file: file.write(drawn))

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self.measured, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.measured, self.count = dict(state["measured"]), state["count"]


def weighted_layers(network: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, nn.Parameter]]]:
    """The name of each layer that has a weight of two dimensions or more, with the layer and the weight."""
    for name, module in network.named_modules():
        for own in ("weight", "in_proj_weight"):  # the latter is MultiheadAttention's
            weight = getattr(module, own, None)
            if isinstance(weight, nn.Parameter) and weight.ndim > 1:
                yield name or "network", (module, weight)


def norm(tensor: Tensor) -> float:
    """The L2 norm, in float64: squares of small gradients are 0 in float32."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def share_of_zero_rows(gradient: Tensor) -> float:
    """The share of rows that are exactly 0."""
    return float((gradient.flatten(1) == 0).all(1).double().mean())


@torch.no_grad()
def activations(network: nn.Module, images: Tensor) -> dict[str, tuple[float, float]]:
    """What reaches each layer of a network in a pass that changes nothing.

    Args:
        network: the network, in the mode in which it is to run.
        images: (B, C, H, W).

    Returns:
        By the name of the layer, the RMS of all numbers that reach it, and their standard deviation over samples. A
        layer that gets no tensor as its first argument is missing.
    """
    found: dict[str, tuple[float, float]] = {}

    def hook(name: str, channels_first: bool) -> Any:
        def measure(module: nn.Module, given: tuple[Any, ...]) -> None:
            if given and isinstance(given[0], Tensor):
                x = given[0].double()
                over = [d for d in range(x.ndim) if d != (1 if channels_first else x.ndim - 1)]
                spread = x.var(over, correction=0).mean().sqrt()
                found[name] = float(x.square().mean().sqrt()), float(spread)

        return measure

    handles = [
        module.register_forward_pre_hook(hook(name, isinstance(module, nn.modules.conv._ConvNd)))
        for name, (module, _) in weighted_layers(network)
    ]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    devices = [images.device] if images.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.func.functional_call(network, buffers, (images,))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _network(pl_module: pl.LightningModule) -> nn.Module:
    if not isinstance(pl_module, Method):
        raise InputError(f"GradientFlow works with the methods of this program, not with {type(pl_module).__name__}")
    return pl_module.model
