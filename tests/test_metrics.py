"""Metrics from running sums, compared with torchmetrics and torch."""

import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

from distill_lightning.metrics import CalibrationError, ConfusionMatrix, NegativeLogLikelihood

LOGITS = torch.randn(1000, 7, generator=torch.Generator().manual_seed(0)) * 2
LABELS = torch.randint(0, 7, (1000,), generator=torch.Generator().manual_seed(1))


def test_calibration_error_is_torchmetrics():
    mine, theirs = CalibrationError(), MulticlassCalibrationError(7, n_bins=15)
    for logits, labels in zip(LOGITS.split(300), LABELS.split(300), strict=True):
        mine.update(logits, labels)
        theirs.update(logits.softmax(1), labels)
    assert mine.compute().item() == pytest.approx(theirs.compute().item(), abs=1e-6)


def test_confusion_matrix_is_torchmetrics():
    mine, theirs = ConfusionMatrix(7), MulticlassConfusionMatrix(7)
    for logits, labels in zip(LOGITS.split(300), LABELS.split(300), strict=True):
        mine.update(logits, labels)
        theirs.update(logits, labels)
    assert torch.equal(mine.compute(), theirs.compute())


def test_nll_is_a_mean_over_samples_not_batches():
    metric = NegativeLogLikelihood()
    for logits, labels in zip(LOGITS.split(300), LABELS.split(300), strict=True):
        metric.update(logits, labels)
    expected = torch.nn.functional.cross_entropy(LOGITS.double(), LABELS)
    assert metric.compute().item() == pytest.approx(expected.item(), abs=1e-9)
