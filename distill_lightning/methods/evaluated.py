"""Validation, test and prediction with a network."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from distill_lightning.confusion import draw
from distill_lightning.data.base import ImageData
from distill_lightning.data.loaders import EvalLoader, limited
from distill_lightning.distributed import from_first_into, say
from distill_lightning.errors import InputError
from distill_lightning.evaluation import METRICS, Evaluation
from distill_lightning.lightning_internals import LeanModule
from distill_lightning.methods.plain_batches import as_batch
from distill_lightning.models.outputs import auxiliary_outputs, auxiliary_weight, in_full, main_output
from distill_lightning.recorded import Recorded
from distill_lightning.values import NO_LABEL, Batch


class Unregistered:
    """Holds a module without registering it as a submodule, so that it is not in the state dict."""

    def __init__(self, module: Any) -> None:
        self.module = module


class Evaluated(Recorded, LeanModule):
    """The part of a method that does not train: network, validation, test, prediction."""

    val_metrics: ClassVar[tuple[str, ...]] = METRICS
    """The names of the metrics that a validation can log."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled = self.cuda_graphs = False
        """Whether the network is compiled, and whether it runs as CUDA graphs: see ``set_network``."""
        self.evaluation: Evaluation | None = None
        self.calibration: dict[str, list[float]] = {}
        """The ``Evaluation.calibration`` of the last test."""
        self.auxiliary: dict[nn.Module, list[list[Tensor]]] = {}
        """The logits of the auxiliary classifiers of networks in the current training step, for each call."""
        self._said_main = False
        self.confusion: list[list[int]] = []
        """The ``Evaluation.confusion`` of the last test."""
        self.plain_batches = False
        """Whether the method is in another program, whose trainer has no data module of this program."""

    def set_network(
        self, network: nn.Module, channels_last: bool = False, compile: bool = False, cuda_graphs: bool = False
    ) -> None:
        """Sets the network, as ``model``.

        Args:
            network: a network that returns logits (B, K) for pictures (B, C, H, W).
            channels_last: whether pictures and weights use the memory format channels_last.
            compile: whether the network is compiled with torch.compile.
            cuda_graphs: whether it is compiled, and runs as CUDA graphs.
        """
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = network.to(memory_format=self.memory_format) if channels_last else network
        self.compiled, self.cuda_graphs = compile or cuda_graphs, cuda_graphs
        # the compiled network is called, but only the original one is registered, so that the state dict keeps its keys
        self._called = Unregistered(self.as_called(network))
        self.network_is_set(network)

    def as_called(self, network: nn.Module) -> Any:
        """What computes the output of a network of the same architecture: the network, or its compiled form."""
        if not self.compiled:
            return network
        return torch.compile(network, mode="reduce-overhead" if self.cuda_graphs else None)

    def replace_call(self, called: Callable[[Tensor], Any]) -> None:
        """Computes the network's output by another function, such as one that computes several networks as one.

        Args:
            called: gives what ``model`` gives, for the same pictures.
        """
        self._called = Unregistered(called)

    def network_is_set(self, network: nn.Module) -> None:
        """Prepares what a method reads inside its network. It is called whenever the network is set."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, C, H, W), in float32, or in float64 if the network computes in it."""
        output = self._called.module(images.contiguous(memory_format=self.memory_format))
        output = self.main_of(output, self.model)
        # a CUDA graph writes its next output to the same place, and a method may keep logits, as DLB does
        return in_full(output.clone() if self.cuda_graphs else output)

    def main_of(self, output: Any, network: nn.Module) -> Any:
        """The logits in the output of a network. In a training step, those of auxiliary classifiers are kept."""
        if isinstance(output, Tensor):
            return output
        if not auxiliary_weight(network):
            if not self._said_main:
                say(f"{type(network).__name__} returns a {type(output).__name__}: only its logits are used")
            self._said_main = True
        elif self.training and torch.is_grad_enabled():
            self.auxiliary.setdefault(network, []).append([*map(in_full, auxiliary_outputs(output))])
        return main_output(output)

    @property
    def image_data(self) -> ImageData:
        """The data module of the trainer.

        Raises:
            InputError: the trainer has no data module, or one of another class.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ImageData):
            raise InputError(f"{type(self).__name__} needs a data module of class ImageData, not {type(data).__name__}")
        return data

    def prepare_evaluation(self, data: ImageData, class_bias: Mapping[str | int, float]) -> None:
        """Makes the metrics if they do not exist yet.

        Args:
            data: the data, which define the classes.
            class_bias: numbers that are added to the logits of classes, by class name.

        Raises:
            InputError: ``class_bias`` has a class that is not in the data.
        """
        if self.evaluation is not None:
            return
        bias = dict(zip(data.class_numbers(class_bias), class_bias.values(), strict=True))
        self.evaluation = Evaluation(data.num_classes, self.trainer.strategy.root_device, bias)

    def log_metrics(self, stage: str, metrics: dict[str, float], step: int) -> None:
        """Logs metrics to all loggers, with the tags ``stage/name``. Only the process with rank 0 logs."""
        if self.trainer.is_global_zero:
            for logger in self.trainer.loggers:
                logger.log_metrics({f"{stage}/{name}": value for name, value in metrics.items()}, step)

    def log_results(self, stage: str, results: dict[str, float], step: int) -> None:
        """Logs results of an evaluation beside the metrics, see ``log_metrics``. Callbacks can monitor them."""
        self.log_metrics(stage, results, step)
        self.log_dict({f"{stage}/{name}": value for name, value in results.items()}, logger=False)

    @property
    def metrics(self) -> Evaluation:
        """The metrics of validation and test. Available after ``setup``, with plain batches after the first one."""
        assert self.evaluation is not None
        return self.evaluation

    @property
    def validation_tags(self) -> set[str]:
        """The tags of the metrics that each validation of a fit logs; empty if there is no validation. Available after
        ``setup``, with a data module of this program.
        """
        validates = self.image_data.val is not None and self.trainer.limit_val_batches
        return {f"val/{name}" for name in METRICS} if validates else set()

    def metrics_for(self, logits: Tensor) -> Evaluation:
        """The metrics, for logits (B, K). Plain batches do not say how many classes there are, so these decide it."""
        if self.evaluation is None:
            self.evaluation = Evaluation(logits.shape[1], logits.device, {})
        return self.evaluation

    def evaluate(self, batch: Batch) -> None:
        """Adds a batch of validation or test to the metrics. The batch may be empty."""
        if len(batch.labels):
            logits = self.over_views(batch.images)
            metrics = self.metrics_for(logits)
            metrics.update(metrics.biased(logits), batch.labels)

    def share_buffers(self) -> None:
        """Gives the network of each process the buffers of the first one, which are those that are saved.

        Otherwise each process would evaluate with the running statistics of its own samples.
        """
        for buffer in self.model.buffers():
            from_first_into(buffer)

    def begin_evaluation(self) -> None:
        """See ``share_buffers``. Batches of an evaluation that was interrupted are forgotten."""
        self.share_buffers()
        if self.evaluation is not None:
            self.evaluation.reset()

    def on_validation_start(self) -> None:
        """See ``begin_evaluation``."""
        self.begin_evaluation()

    def on_test_start(self) -> None:
        """See ``begin_evaluation``."""
        self.begin_evaluation()

    def on_predict_start(self) -> None:
        """See ``share_buffers``."""
        self.share_buffers()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """See ``evaluate``."""
        self.evaluate(as_batch(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """See ``evaluate``."""
        self.evaluate(as_batch(batch))

    @torch.no_grad()
    def measure(self, loader: EvalLoader, limit: float | None) -> dict[str, float]:
        """Evaluates the network with its current weights during a fit. All processes must call it.

        Args:
            loader: the pictures.
            limit: how many batches are evaluated, as ``limit_val_batches`` of the trainer.

        Returns:
            The metrics over all processes, by name.
        """
        batches = limited(len(loader), limit)
        self.begin_evaluation()
        training, precision = self.training, self.trainer.precision_plugin
        self.eval()
        with precision.forward_context():
            for batch in itertools.islice(loader, batches):
                self.evaluate(precision.convert_input(batch))
        self.train(training)
        return self.metrics.compute()

    def on_validation_epoch_end(self) -> None:
        """See ``end_evaluation``."""
        self.end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """See ``end_evaluation``."""
        self.end_evaluation("test")

    def end_evaluation(self, stage: str) -> None:
        """Computes, logs and resets the metrics. ``stage`` is "val" or "test". Callbacks can monitor the metrics."""
        if self.evaluation is None:
            return  # there was no batch
        results = self.metrics.compute()
        if stage == "test":
            self.calibration, self.confusion = self.metrics.calibration(), self.metrics.confusion
            self._show_confusion()
        if not self.trainer.sanity_checking:
            tagged = {f"{stage}/{k}": v for k, v in results.items()}
            if not self.plain_batches:
                self.log_metrics(stage, results, self.trainer.global_step)
            # in another program Lightning logs them: its trainer returns only what it has logged itself
            self.log_dict(tagged, logger=self.plain_batches and bool(self.trainer.loggers))
            if stage == "val" and self.trainer.state.fn == "fit":
                self.after_validation(tagged)

    def after_validation(self, results: dict[str, float]) -> None:
        """Called at the end of each validation of a fit, before a checkpoint is written.

        Args:
            results: the metrics, by tag.
        """

    def _show_confusion(self) -> None:
        """Adds a picture of the confusion matrix to TensorBoard."""
        boards = [logger for logger in self.trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if boards and self.trainer.is_global_zero:
            names = [str(k) for k in range(len(self.confusion))] if self.plain_batches else self.image_data.class_names
            drawn = draw(torch.tensor(self.confusion), names)
            for board in boards:
                board.experiment.add_image("test/confusion", drawn, self.trainer.global_step, dataformats="HWC")

    def averaged(self, call: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The mean of an output over the views of ``data.test_views``, in test and predict.

        Args:
            call: gives the output for pictures (B, C, H, W), with any shape.
            images: (B, C, H, W).
        """
        views = None if self.plain_batches else self.image_data.test_views
        if views is None or not (self.trainer.testing or self.trainer.predicting):
            return call(self.preprocessed(images))
        return torch.stack([call(self.preprocessed(view)) for view in views(images)]).mean(0)

    def over_views(self, images: Tensor) -> Tensor:
        """The logits (B, K) for pictures (B, C, H, W), over the views of ``data.test_views``."""
        return self.averaged(self, images)

    def preprocessed(self, images: Tensor) -> Tensor:
        """See ``ImageData.preprocessed``. Without a data module of this program, the same pictures."""
        return images if self.plain_batches or not self.has_trainer else self.image_data.preprocessed(images)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Predicts a batch.

        Returns:
            ``probs`` (B, K) float32, ``index`` (B,) int64 and, if the pictures have labels, ``label`` (B,) int64. An
            empty dict for an empty batch. In another program ``index`` is NO_LABEL.
        """
        batch = as_batch(batch)
        if not len(batch.index):
            return {}
        logits = self.over_views(batch.images)
        probs = self.metrics_for(logits).biased(logits).softmax(1)
        labels = {} if bool((batch.labels == NO_LABEL).all()) else {"label": batch.labels}
        return {"probs": probs, "index": batch.index, **labels}
