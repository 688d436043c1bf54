"""How members of an ensemble differ, and its temperature: values by hand, and against plain loops."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from distill_lightning.diversity import (
    LEAST,
    MOST,
    disagreements,
    divergences,
    error_correlation,
    members_needed,
    temperature_of,
    temperature_sums,
)
from distill_lightning.metrics import MembersMetric, TemperatureMetric


def drawn(*shape: int, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_disagreement_by_hand():
    predicted = torch.tensor([[0, 1, 2], [0, 1, 1], [0, 2, 0]])
    assert float(disagreements(predicted)) == pytest.approx(0 + 2 / 3 + 1)  # pairs that differ: 0, 2 and 3 of 3
    assert float(disagreements(predicted[:1])) == 0


def test_kl_between_two_members_by_hand():
    # p = (1/2, 1/2) and q = (3/4, 1/4): KL(p || q) = ln(2 / sqrt 3), KL(q || p) = 3/4 ln 3 - ln 2
    logits = torch.tensor([[[0.0, 0.0]], [[math.log(3), 0.0]]], dtype=torch.float64)
    expected = (math.log(2 / math.sqrt(3)) + 0.75 * math.log(3) - math.log(2)) / 2
    assert float(divergences(logits)) == pytest.approx(expected, abs=1e-9)
    assert expected == pytest.approx(0.1373265, abs=1e-7)
    assert float(divergences(logits[:1])) == 0


def test_kl_is_the_mean_over_ordered_pairs():
    logits = drawn(5, 7, 4)
    log_probs = logits.double().log_softmax(2)
    pairs = [
        F.kl_div(log_probs[j], log_probs[i], log_target=True, reduction="none").sum(1)
        for i, j in itertools.permutations(range(5), 2)
    ]
    assert torch.allclose(divergences(logits), torch.stack(pairs).mean(0), atol=1e-12)
    shifted = logits + drawn(5, 7, 1)  # a constant on all logits of a row changes nothing
    assert torch.allclose(divergences(shifted), divergences(logits), atol=1e-5)


def test_error_correlation_by_hand():
    wrong = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).double()
    # the first and the third are equal (1), the second is independent of both (0), the last one is never wrong
    assert error_correlation(wrong @ wrong.T, 4) == pytest.approx(1 / 3)
    assert error_correlation((wrong @ wrong.T)[:2, :2], 4) == pytest.approx(0)
    assert error_correlation((wrong @ wrong.T)[3:, 3:], 4) is None
    opposite = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).double()
    assert error_correlation(opposite @ opposite.T, 4) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("by_members", "one", "needed"),
    [
        ([0.80, 0.85, 0.89, 0.90], 0.80, 4),  # 95 % of 0.10 is 0.895
        ([0.80, 0.896, 0.89, 0.90], 0.80, 4),  # it must stay there
        ([0.80, 0.897, 0.90, 0.90], 0.80, 2),
        ([0.90, 0.90], 0.80, 1),
        ([0.80, 0.79], 0.80, 1),  # no gain
    ],
)
def test_members_needed(by_members, one, needed):
    assert members_needed(torch.tensor(by_members), one) == needed


def test_temperature_by_hand():
    # the logit of the predicted class is 4 above the other, and 3 of 4 are right: sigmoid(4 / T) = 3/4, T = 4 / ln 3
    logits, labels = torch.tensor([[4.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
    assert temperature_of(temperature_sums(logits, labels)) == pytest.approx(4 / math.log(3), rel=1e-6)
    assert temperature_of(temperature_sums(logits[:3], labels[:3])) == LEAST  # all right: as sure as possible
    assert temperature_of(temperature_sums(logits, 1 - labels)) == MOST  # mostly wrong: as unsure as possible


def test_temperature_has_the_smallest_nll():
    logits = drawn(400, 6, scale=3.0)
    labels = torch.distributions.Categorical(logits=logits / 2.5).sample()
    found = temperature_of(temperature_sums(logits, labels))

    def nll(temperature: float) -> float:
        return float(F.cross_entropy(logits.double() / temperature, labels))

    by_search = min((nll(t), t) for t in torch.linspace(1.5, 4.0, 2501).tolist())[1]
    assert found == pytest.approx(by_search, abs=2e-3)
    assert nll(found) <= nll(by_search) + 1e-12
    # in parts, in any order, and with all logits of a row shifted
    parts = temperature_sums(logits[:100], labels[:100]) + temperature_sums(logits[100:] + 7, labels[100:])
    assert temperature_of(parts) == pytest.approx(found, rel=1e-5)


def test_metrics_add_up_over_batches():
    logits, labels = drawn(4, 90, 5), torch.arange(90) % 5
    by_first = logits.cumsum(0).argmax(2)
    whole, parts = MembersMetric(4), MembersMetric(4)
    whole.update(logits, by_first, labels)
    for part in (slice(0, 17), slice(17, 90)):
        parts.update(logits[:, part], by_first[:, part], labels[part])
    first, second = whole.compute(), parts.compute()
    assert first.keys() == second.keys() and "error_correlation" in first
    for name, value in first.items():
        assert torch.allclose(second[name], value, atol=1e-12), name
    fitted = TemperatureMetric()
    fitted.update(logits[0], labels)
    assert float(fitted.compute()) == pytest.approx(temperature_of(temperature_sums(logits[0], labels)))
