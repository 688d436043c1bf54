"""The picture of soft targets."""

import torch
from helpers import fit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill_lightning.callbacks.insights import TEMPERATURES, draw_soft_targets


def bars(drawn: torch.Tensor) -> torch.Tensor:
    """How many pixels are green (the right class)."""
    return (drawn == torch.tensor([0, 158, 115])).all(2).sum()


def test_one_row_a_picture_and_the_right_class_in_green():
    images = torch.randint(0, 255, (20, 1, 8, 8), dtype=torch.uint8)
    logits = torch.randn(20, 10) * 3
    right = draw_soft_targets(images, logits, logits.argmax(1), [str(k) for k in range(10)], rows=4)
    wrong = draw_soft_targets(images, logits, logits.argmin(1), [str(k) for k in range(10)], rows=4)
    assert right.dtype == torch.uint8 and right.shape[2] == 3
    assert right.shape[0] > draw_soft_targets(images, logits, logits.argmax(1), ["k"] * 10, rows=2).shape[0]
    assert bars(right) > 4 * len(TEMPERATURES) * 100
    assert bars(wrong) == 0  # not among the five most probable


def test_fewer_classes_and_colours():
    draw_soft_targets(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, 2), torch.zeros(3).long(), ["a", "b"])


def test_tensorboard_shows_it_once():
    fit("digits/baseline.yaml", "--trainer.max_epochs", 1)
    for mode in ("online", "table"):
        run = fit("digits/born_again.yaml", "--trainer.max_epochs", 1, "--trainer.callbacks.mode", mode)
        reader = EventAccumulator(str(run))
        reader.Reload()
        assert [image.step for image in reader.Images("teacher/soft_targets")] == [0]
