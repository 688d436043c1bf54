"""The statistics of batch norm, estimated anew before a test (Izmailov et al. 2018, arXiv:1803.05407, section 3.2; in
the authors' code, and that of Maddox et al. 2019, arXiv:1902.02476, ``bn_update``).

    mu = sum_b n_b mean_b / sum_b n_b        var = sum_b n_b var_b / sum_b n_b

mean_b and var_b are the mean and the unbiased variance of a channel in batch b of n_b pictures. In training, batch norm
normalises with each batch's own statistics, and keeps a moving average of them for evaluation. If the weights still
move fast at the end, as at a high learning rate, this average is that of older weights, and the evaluation is wrong.
Here all statistics are those of the final weights.

The training pictures are shown as the test shows its own, without augmentation and mixing, because the statistics are
to describe what the network gets in the test. Only batch norm is in training mode, so that dropout draws nothing; in
the authors' code the whole network is. A layer's statistics are computed from the outputs of the layers before it,
which normalise with their batches' statistics.
"""

from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from distill_lightning.data.loaders import EvalLoader
from distill_lightning.data.splits import Split
from distill_lightning.data.training_samples import Share
from distill_lightning.distributed import say
from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method
from distill_lightning.orders import put_in_order
from distill_lightning.ranges import Range
from distill_lightning.recorded import Recorded

BatchNorm = nn.modules.batchnorm._BatchNorm
Pictures = Annotated[int, Range(at_least=2)]
"""A single picture has no variance."""


class ReestimateBatchNorm(Recorded, Callback):
    """Estimates the statistics of batch norm anew on training pictures, before ``test`` and ``validate``.

    Nothing is written into a checkpoint, and after the evaluation the network has its own statistics again. The
    validations during a fit are not changed. The members of an ensemble are included.

    Args:
        pictures: the number of training pictures; all if there are fewer. They are the same in every process.

    Raises:
        InputError: ``pictures`` is out of range. When a fit or an evaluation starts: the network has no batch norm with
            running statistics.
    """

    def __init__(self, pictures: Pictures = 1000) -> None:
        self.pictures = pictures
        self.own: list[dict[str, Tensor]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _own_batch_norms(pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._replace(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._replace(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._put_back(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._put_back(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._put_back(pl_module)

    def _replace(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Method)
        layers = _own_batch_norms(pl_module)
        self.own = [{name: value.clone() for name, value in layer.named_buffers()} for layer in layers]
        data = pl_module.image_data
        if data.is_a_test_part:
            raise InputError(
                f"{data.name} is a test part alone, and batch norm is estimated on training pictures: leave "
                "reestimate_batch_norm out, or give the run's data.root"
            )
        if data.train is None:
            data.setup("predict")  # reads the training part, and keeps the normalisation of the checkpoint
        split = data.training_split
        # mixed, because the pictures of a folder lie class by class
        rows = put_in_order(split.taken, 0, 0)[: self.pictures]
        assert data.normaliser is not None
        share = Share(device=trainer.strategy.root_device)
        chosen = Split(split.source, rows, split.labels)
        loader = EvalLoader(chosen, data.eval_batch_size, data.normaliser, share, data.eval_transforms)
        count = reestimate(pl_module, layers, loader, trainer.precision_plugin)
        say(f"batch norm: the statistics of {len(layers)} layers are those of {count:,} training pictures")

    def _put_back(self, pl_module: pl.LightningModule) -> None:
        if not self.own:  # there was an error before they were replaced
            return
        for layer, own in zip(batch_norms(pl_module.model), self.own, strict=True):  # type: ignore[arg-type]
            layer.load_state_dict(own, strict=False)
        self.own = []


def _own_batch_norms(pl_module: pl.LightningModule) -> list[BatchNorm]:
    """The batch norms of the network of a method.

    Raises:
        InputError: there are none.
    """
    assert isinstance(pl_module, Method)
    if layers := batch_norms(pl_module.model):
        return layers
    name = type(pl_module.model).__name__
    raise InputError(f"{name} has no batch norm with running statistics: leave reestimate_batch_norm out")


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    """The batch norms of a network that have running statistics."""
    return [m for m in network.modules() if isinstance(m, BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def reestimate(pl_module: Method, layers: list[BatchNorm], loader: EvalLoader, precision: Any) -> int:
    """Replaces the running statistics of layers by those over some batches.

    Args:
        pl_module: the method, whose network is called.
        layers: its batch norms.
        loader: the batches.
        precision: the precision plugin of the trainer.

    Returns:
        The number of pictures. A last batch of a single picture, which has no variance, is left out.
    """
    usual = [layer.momentum for layer in layers]
    seen = 0
    try:
        for layer in layers:
            layer.training = True
        with precision.forward_context():
            for batch in loader:
                count = len(batch.images)
                if count < 2:
                    continue
                seen += count
                for layer in layers:
                    layer.momentum = count / seen
                pl_module(pl_module.preprocessed(precision.convert_input(batch.images)))
    finally:
        for layer, momentum in zip(layers, usual, strict=True):
            layer.training, layer.momentum = False, momentum
    return seen
