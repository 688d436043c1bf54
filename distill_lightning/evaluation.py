"""The metrics of every method's validation and test."""

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from distill_lightning.metrics import CalibrationError, NegativeLogLikelihood


class Evaluation:
    """Top-1, top-5, NLL in nats and ECE of 15 bins, summed up over batches and processes.

    It is no part of a module: a run in half precision would make its sums half precise too.

    Args:
        num_classes: K.
        device: of the sums.
        bias: (K,), added to the logits, where there is one.
    """

    def __init__(self, num_classes: int, device: torch.device, bias: Tensor | None = None) -> None:
        self.bias = None if bias is None else bias.to(device)
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

    def biased(self, logits: Tensor) -> Tensor:
        """(..., K), with the bias added."""
        return logits if self.bias is None else logits + self.bias

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch: (B, K), as ``biased`` gives them, and (B,)."""
        self.metrics.update(logits, labels)

    def compute(self) -> dict[str, float]:
        """The metrics of all that was counted, which is then forgotten."""
        results = {name: float(value) for name, value in self.metrics.compute().items()}
        self.metrics.reset()
        return results

    def calibration(self) -> dict[str, list[float]]:
        """By bin: pictures, sum of confidences, right answers; of what was computed last."""
        return self.calibration_error.table
