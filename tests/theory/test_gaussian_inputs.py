"""Ensembles on Gaussian inputs: the data, the best possible accuracy, and what weight decay does."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from distill_lightning.theory.gaussian_inputs import SETTINGS, Mixture, Planted, Setting, figure_4


def test_the_densities_of_a_mixture():
    mixture = Mixture(Setting(3, 10, 2), torch.Generator().manual_seed(0))
    inputs = torch.randn(4, 3).double()
    components = MultivariateNormal(mixture.means.double(), torch.eye(3).double())
    expected = components.log_prob(inputs[:, None, None]).logsumexp(2)
    found = mixture.log_densities(inputs)
    torch.testing.assert_close(found - found[:, :1], expected - expected[:, :1])


@pytest.mark.parametrize("name", SETTINGS)
def test_inputs_and_labels(name):
    setting = SETTINGS[name]
    draws = torch.Generator().manual_seed(0)
    source = (Mixture if setting.components else Planted)(setting, draws)
    inputs, labels = source.draw(4000, torch.Generator().manual_seed(1))
    assert inputs.shape == (4000, setting.dimension)
    counts = labels.bincount(minlength=10) / 4000
    assert counts.min() > 0.02  # centred logits: no class is without samples, and none takes all
    if isinstance(source, Mixture):
        within = inputs - source.means[labels].mean(1) if setting.components == 1 else inputs
        assert setting.components > 1 or abs(float(within.std()) - 1) < 0.01


def test_decay_removes_the_gain():
    """Short: 3 networks and 300 steps. The study has the whole table."""
    decayed, not_decayed = (figure_4("one", decay, members=3, steps=300, seed=0).metrics for decay in (0.01, 0.0))
    assert decayed["gain"] < 0.006 < not_decayed["gain"]
    assert decayed["disagreement"] < not_decayed["disagreement"]
    assert decayed["accuracy/one"] < decayed["accuracy/bayes"] == not_decayed["accuracy/bayes"]
    again = figure_4("one", 0.01, members=3, steps=300, seed=0).metrics
    assert again == decayed
