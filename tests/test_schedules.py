"""Learning rates by epoch."""

import pytest
import torch

from distill_lightning.errors import InputError
from distill_lightning.schedules import Constant, Cosine, MultiStep


def test_cosine_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for epoch in range(10):
        assert Cosine().factor(epoch, 10, 1.0) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_multistep_drops_at_milestones():
    schedule = MultiStep([3, 5], gamma=0.1)
    factors = [schedule.factor(epoch, 8, 0.5) for epoch in (0, 2.5, 3, 4.5, 5, 7)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warmup_rises_to_one():
    schedule = Constant(warmup_epochs=2)
    factors = [schedule.factor(step / 4, 10, 1 / 4) for step in range(9)]
    assert factors == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1])


def test_cosine_starts_after_warmup_and_ends_at_zero():
    schedule = Cosine(warmup_epochs=2)
    assert schedule.factor(2, 10, 0.25) == pytest.approx(1)
    assert schedule.factor(10, 10, 0.25) == pytest.approx(0)


@pytest.mark.parametrize("make", [lambda: Cosine(-1), lambda: MultiStep([5, 3]), lambda: MultiStep([3], gamma=0)])
def test_bad_options(make):
    with pytest.raises(InputError):
        make()
