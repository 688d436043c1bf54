"""Values, zeros, invariances and gradients of the losses. Golden values: computed in float64."""

import pytest
import torch
import torch.nn.functional as F

from distill_lightning.losses import cross_entropy, kd, kl_divergence, past_predictions

S = torch.tensor([[2, -1, 0.5, 0], [0, 1.5, -0.5, 1], [-1, 0, 3, 0.5]], dtype=torch.float64)
T = torch.tensor([[3, 0, 1, -1], [1, 2, 0, -1], [0, 1, 2, 2.5]], dtype=torch.float64)
Y = torch.tensor([0, 1, 2])
FRESH = torch.tensor([[1, 0, 0, 0], [0, 0, 2, -1]], dtype=torch.float64)
Y_FRESH = torch.tensor([3, 2])

dlb_ce = cross_entropy(torch.cat([FRESH, S]), torch.cat([Y_FRESH, Y]))


@pytest.mark.parametrize(
    ("value", "golden"),
    [
        (cross_entropy(S, Y), 0.385922),
        (kl_divergence(S, T), 0.408185),
        (kd(S, T, temperature=3), 0.517104),
        (kd(S, T, temperature=4), 0.525795),
        (kd(S, T, temperature=20), 0.537991),
        (0.1 * cross_entropy(S, Y) + 0.9 * kd(S, T, temperature=4), 0.511808),
        (cross_entropy(S, Y, label_smoothing=0.1), 0.552588),
        (dlb_ce, 0.635882),
        (dlb_ce + kd(S, T, temperature=3), 1.152987),
        (dlb_ce + 0.5 * kd(S, T, temperature=3), 0.894435),
        (cross_entropy(S, Y) + kl_divergence(S, T), 0.794107),
        (cross_entropy(S, T.softmax(1)), 1.285415),
    ],
)
def test_golden_values(value, golden):
    assert value.item() == pytest.approx(golden, abs=1e-6)


def test_mean_over_the_batch_not_over_classes():
    by_hand = (T.softmax(1) * (T.log_softmax(1) - S.log_softmax(1))).sum(1).mean()
    assert kl_divergence(S, T).item() == pytest.approx(by_hand.item(), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1, 4, 20])
def test_zero_where_both_agree(temperature):
    assert kd(S, S, temperature=temperature).item() == pytest.approx(0, abs=1e-12)


def test_shifting_logits_changes_nothing():
    shift = torch.tensor([[3.0], [-2.0], [100.0]], dtype=torch.float64)
    assert kd(S - shift, T + shift, temperature=4).item() == pytest.approx(kd(S, T, temperature=4).item(), abs=1e-9)


def test_gradient_reaches_the_student_alone():
    student, teacher = S.clone().requires_grad_(), T.clone().requires_grad_()
    kd(student, teacher, temperature=4).backward()
    assert teacher.grad is None
    expected = 4 * ((S / 4).softmax(1) - (T / 4).softmax(1)) / len(S)
    assert torch.allclose(student.grad, expected)


def test_high_temperature_matches_logits():
    """Hinton et al., equation 4: with logits of mean zero the gradient becomes (z - v) / N, times our T^2 / T^2."""
    student = (S - S.mean(1, keepdim=True)).requires_grad_()
    teacher = T - T.mean(1, keepdim=True)
    kd(student, teacher, temperature=1e4).backward()
    expected = (student - teacher).detach() / S.shape[1] / len(S)
    assert torch.allclose(student.grad, expected, rtol=1e-3)


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        kl_divergence(S, T, temperature=temperature)


def test_softmax_at_temperatures():
    """What temperature does to (2, 7, 10)."""
    logits = torch.tensor([2.0, 7.0, 10.0], dtype=torch.float64)
    expected = {
        1: (0.00032, 0.04741, 0.95227),
        5: (0.11532, 0.31348, 0.5712),
        10: (0.20516, 0.33825, 0.45659),
        20: (0.26484, 0.34006, 0.3951),
    }
    for temperature, probs in expected.items():
        assert F.softmax(logits / temperature, 0).tolist() == pytest.approx(probs, abs=1e-5)


def test_no_gradient_flows_into_targets():
    """Not into those of an earlier epoch either, which in a common program kept their graph."""
    past, logits = torch.rand(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    one_hot = F.one_hot(torch.arange(4) % 3, 3).float()
    (cross_entropy(logits, past) + past_predictions(logits, one_hot, past, alpha=0.5)).backward()
    assert past.grad is None and logits.grad is not None
