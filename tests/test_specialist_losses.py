"""The dustbin of a specialist: its logit, its loss and its correction."""

import math

import pytest
import torch
import torch.nn.functional as F

from distill_lightning import losses

CLASSES = torch.tensor([4, 1])


def logits(rows: int = 6) -> torch.Tensor:
    return torch.randn(rows, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_correction_is_a_ratio_of_two_factors():
    """Of 100 equal classes 5 are special: log 19, not log 10."""
    b = losses.dustbin_correction(2500, 50_000)
    assert b == pytest.approx(2.944439, abs=1e-6)
    before, after = torch.tensor([2.0, 1.0, 0.5]), torch.tensor([2.0, 1.0, 0.5 + b])
    assert before.softmax(0).tolist() == pytest.approx([0.628532, 0.231224, 0.140244], abs=1e-6)
    assert after.softmax(0).tolist() == pytest.approx([0.178337, 0.065607, 0.756056], abs=1e-6)
    assert losses.dustbin_correction(300, 15_000) == pytest.approx(3.891820, abs=1e-6)
    assert losses.dustbin_correction(20, 100, share=0.2) == pytest.approx(0.0, abs=1e-12)
    assert losses.dustbin_correction(20, 100, share=0.8) == pytest.approx(math.log(16))
    for wrong in ((0, 10), (10, 10)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            losses.dustbin_correction(*wrong)


def test_the_dustbin_is_the_sum_of_the_other_classes():
    z = logits()
    probs = losses.dustbin_logits(z, CLASSES).softmax(1)
    whole = z.softmax(1)
    assert torch.allclose(probs[:, :2], whole[:, [4, 1]])
    assert torch.allclose(probs[:, 2], whole[:, [0, 2, 3, 5, 6]].sum(1))
    assert losses.dustbin_labels(torch.tensor([1, 0, 4, 6]), CLASSES).tolist() == [1, 2, 0, 2]


def test_the_loss():
    z, labels = logits().requires_grad_(), torch.tensor([1, 4, 0, 6, 2, 1])
    columns, targets = losses.dustbin_logits(z, CLASSES), torch.tensor([1, 0, 2, 2, 2, 1])
    plain = losses.dustbin_cross_entropy(z, labels, CLASSES).item()
    assert plain == pytest.approx(F.cross_entropy(columns, targets).item())
    shifted = columns - torch.tensor([0.0, 0.0, 1.5])
    loss = losses.dustbin_cross_entropy(z, labels, CLASSES, 1.5)
    assert loss.item() == pytest.approx(F.cross_entropy(shifted, targets).item())
    loss.backward()
    assert bool((z.grad != 0).all())
    # among the other classes only their sum matters
    other = labels.clone()
    other[3] = 5
    assert losses.dustbin_cross_entropy(z, other, CLASSES, 1.5).item() == loss.item()


@pytest.mark.parametrize("corrected", [True, False])
def test_batches_of_half_and_half_need_the_correction(corrected):
    """A linear model of Gaussian classes that is trained half and half, and its mean dustbin on natural data."""
    draw = torch.Generator().manual_seed(1)
    centres = 1.2 * torch.randn(20, 8, generator=draw)
    special = torch.tensor([0, 1])

    def natural(count: int, classes: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        labels = first + torch.randint(classes, (count,), generator=draw)
        return centres[labels] + torch.randn(count, 8, generator=draw), labels

    weight, bias = torch.zeros(8, 20, requires_grad=True), torch.zeros(20, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.02)
    b = losses.dustbin_correction(2, 20) if corrected else 0.0
    for _ in range(400):
        parts = [natural(64, 2), natural(64, 18, 2)]
        images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        optimizer.zero_grad()
        losses.dustbin_cross_entropy(images @ weight + bias, labels, special, b).backward()
        optimizer.step()
    images, _ = natural(4000, 20)
    mean = losses.dustbin_logits((images @ weight + bias).detach(), special).softmax(1)[:, -1].mean()
    assert abs(float(mean) - 0.9) < 0.02 if corrected else float(mean) < 0.85
