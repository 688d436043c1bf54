"""The metrics that every method reports in validation and test."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from distill_lightning.confusion import over_classes
from distill_lightning.metrics import CalibrationError, ConfusionMatrix, NegativeLogLikelihood

METRICS = ("accuracy", "accuracy_top5", "nll", "ece", "balanced_accuracy", "macro_f1")
"""The names of all metrics."""


class Evaluation:
    """Top-1 and top-5 accuracy, NLL in nats, ECE with 15 bins and the confusion matrix, over all batches and processes.
    Balanced accuracy and macro F1 are computed from the matrix.

    This is not a submodule of the method: a run in half precision would convert the sums to half precision as well.

    Args:
        num_classes: K.
        device: the device that holds the sums.
        bias: numbers that are added to the logits of classes, by the number of the class.
    """

    def __init__(self, num_classes: int, device: torch.device, bias: Mapping[int, float]) -> None:
        self.bias = None
        if bias:
            self.bias = torch.zeros(num_classes, device=device)
            self.bias[[*bias]] = torch.tensor([*bias.values()], device=device)
        top5 = min(5, num_classes)
        self.calibration_error = CalibrationError()
        self.metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
                "accuracy_top5": MulticlassAccuracy(num_classes, top_k=top5, average="micro", validate_args=False),
                "nll": NegativeLogLikelihood(),
                "ece": self.calibration_error,
            }
        ).to(device)
        self.confusion_matrix = ConfusionMatrix(num_classes).to(device)
        self.confusion: list[list[int]] = []
        """Number of pictures by true class (row) and predicted class (column), at the last ``compute``."""

    def biased(self, logits: Tensor) -> Tensor:
        """The logits (..., K) plus the bias."""
        return logits if self.bias is None else logits + self.bias

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: logits (B, K), as returned by ``biased``, and labels (B,) int64."""
        self.metrics.update(logits, labels)
        self.confusion_matrix.update(logits, labels)

    def reset(self) -> None:
        """Forgets the added batches."""
        self.metrics.reset()
        self.confusion_matrix.reset()

    def compute(self) -> dict[str, float]:
        """The metrics over all added batches. Resets the sums."""
        results = {name: float(value) for name, value in self.metrics.compute().items()}
        confusion = self.confusion_matrix.compute().cpu()
        self.reset()
        self.confusion = confusion.tolist()
        return results | over_classes(confusion)

    def calibration(self) -> dict[str, list[float]]:
        """Number of pictures, sum of confidences and correct predictions in each bin, at the last ``compute``."""
        return self.calibration_error.table
