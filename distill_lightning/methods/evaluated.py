"""A network that is validated, tested and predicted with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.data.base import ImageData
from distill_lightning.data.loaders import EvalLoader
from distill_lightning.errors import InputError
from distill_lightning.evaluation import Evaluation
from distill_lightning.lightning_internals import LeanModule
from distill_lightning.values import NO_LABEL, Batch


class Unregistered:
    """Holds a module beside the module tree: it is no part of the state dict."""

    def __init__(self, module: Any) -> None:
        self.module = module


class Evaluated(LeanModule):
    """What a method does with its network when it does not train it."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluation: Evaluation | None = None
        self.calibration: dict[str, list[float]] = {}
        """Of the last test, by bin: pictures, sum of confidences, right answers."""

    def set_network(self, network: nn.Module, channels_last: bool = False, compile: bool = False) -> None:
        """Takes a network, as ``model``.

        Args:
            network: gives logits (B, K) for pictures (B, C, H, W).
            channels_last: whether pictures and weights lie in memory with the channels last.
            compile: whether it is compiled.
        """
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = network.to(memory_format=self.memory_format) if channels_last else network
        self.compiled = compile
        # what is compiled is called, and what is not is saved: the keys stay those of the plain network
        self._called = Unregistered(torch.compile(network) if compile else network)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) in float32, whatever the precision of the network."""
        logits: Tensor = self._called.module(images.contiguous(memory_format=self.memory_format))
        return logits.float()

    @property
    def image_data(self) -> ImageData:
        """The data module of the trainer.

        Raises:
            InputError: it has none, or another.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ImageData):
            raise InputError(f"{type(self).__name__} needs an ImageData data module, not {type(data).__name__}")
        return data

    def prepare_evaluation(self, data: ImageData, class_bias: Mapping[str | int, float]) -> None:
        """Makes the metrics, once.

        Args:
            data: whose classes.
            class_bias: added to the logits of classes, by name.
        """
        if self.evaluation is not None:
            return
        bias = torch.zeros(data.num_classes) if class_bias else None
        for number, value in zip(data.class_numbers(class_bias), class_bias.values(), strict=True):
            bias[number] = value  # type: ignore[index]
        self.evaluation = Evaluation(data.num_classes, self.trainer.strategy.root_device, bias)

    def log_metrics(self, stage: str, metrics: dict[str, float], step: int) -> None:
        """Sends numbers to every logger, as ``stage/name``."""
        if self.trainer.is_global_zero:
            for logger in self.trainer.loggers:
                logger.log_metrics({f"{stage}/{name}": value for name, value in metrics.items()}, step)

    @property
    def metrics(self) -> Evaluation:
        """Of validation and test; there after ``setup``."""
        assert self.evaluation is not None
        return self.evaluation

    def evaluate(self, batch: Batch) -> None:
        """Counts a batch of validation or test, which may be empty."""
        if len(batch.labels):
            self.metrics.update(self.metrics.biased(self(batch.images)), batch.labels)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch)

    @torch.no_grad()
    def measure(self, loader: EvalLoader) -> dict[str, float]:
        """Metrics of the network as it is, in the middle of a fit. All processes ask together."""
        training, precision = self.training, self.trainer.precision_plugin
        self.eval()
        with precision.forward_context():
            for batch in loader:
                self.evaluate(precision.convert_input(batch))
        self.train(training)
        return self.metrics.compute()

    def on_validation_epoch_end(self) -> None:
        self.end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self.end_evaluation("test")

    def end_evaluation(self, stage: str) -> None:
        """Logs what was counted, and hands it to callbacks that monitor."""
        results = self.metrics.compute()
        if stage == "test":
            self.calibration = self.metrics.calibration()
        if not self.trainer.sanity_checking:
            self.log_metrics(stage, results, self.trainer.global_step)
            self.log_dict({f"{stage}/{k}": v for k, v in results.items()}, logger=False)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Probabilities (B, K), index and labels (B,) of a batch; nothing for an empty one."""
        if not len(batch.index):
            return {}
        probs = self.metrics.biased(self(batch.images)).softmax(1)
        labels = {} if bool((batch.labels == NO_LABEL).all()) else {"label": batch.labels}
        return {"probs": probs, "index": batch.index, **labels}

