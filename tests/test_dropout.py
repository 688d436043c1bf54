"""Dropout averages 2^n networks (Hinton et al. 2012, arXiv:1207.0580; Srivastava et al. 2014)."""

import itertools

import pytest
import torch
from torch import nn

from distill_lightning.models import FullyConnected

UNITS = 10


def test_the_network_in_eval_mode_is_the_normalised_geometric_mean_of_all_masks():
    """With one layer of dropout before the softmax, exactly: all 2^n masks of n units, each as likely as the others."""
    torch.manual_seed(0)
    hidden, last = torch.randn(3, UNITS).double(), nn.Linear(UNITS, 4).double()
    masks = torch.tensor([*itertools.product((0.0, 2.0), repeat=UNITS)], dtype=torch.float64)  # torch divides by 1 - p
    logits = last(masks[:, None] * hidden)
    geometric = logits.log_softmax(2).mean(0).softmax(1)
    whole = nn.Sequential(nn.Dropout(0.5), last).eval()(hidden)
    assert (geometric - whole.softmax(1)).abs().max() < 1e-12
    assert (logits.mean(0) - whole).abs().max() < 1e-12
    assert (logits.softmax(2).mean(0) - whole.softmax(1)).abs().max() > 1e-3  # not the arithmetic mean


@pytest.mark.parametrize("layers", [2, 3])
def test_with_more_layers_it_is_near_but_not_equal(layers):
    """All masks of two or three layers of four units: the network in eval mode is much nearer to the normalised
    geometric mean than a network with one mask is, and not equal to it."""
    torch.manual_seed(0)
    network = FullyConnected(image_size=8, units=(4,) * layers, dropout=0.5).double()
    pictures = torch.randn(20, 1, 8, 8).double()
    masks = torch.tensor([*itertools.product((0.0, 2.0), repeat=4 * layers)], dtype=torch.float64)
    left = [*masks.split(4, dim=1)]
    with torch.no_grad():
        x = pictures.expand(len(masks), *pictures.shape).flatten(2)
        for layer in [*network][1:]:
            is_dropout = isinstance(layer, nn.Dropout)
            x = x * left.pop(0)[:, None] if is_dropout and layer.p else x if is_dropout else layer(x)
        scaled = network.eval()(pictures).softmax(1)
    assert not left
    geometric = x.log_softmax(2).mean(0).softmax(1)
    one = (x.softmax(2) - scaled).abs().sum(2).mean()
    away = (geometric - scaled).abs().sum(1).mean()
    assert 1e-4 < away < one / 3


def test_with_two_layers_the_mean_of_sampled_masks_is_near_the_scaled_network():
    torch.manual_seed(0)
    network, pictures = FullyConnected(image_size=8, units=(64, 64), dropout=0.5), torch.randn(20, 1, 8, 8)
    with torch.no_grad():
        sampled = torch.stack([network.train()(pictures) for _ in range(400)]).log_softmax(2)
        scaled = network.eval()(pictures).log_softmax(1)
    one, mean = (sampled[0] - scaled).abs().mean(), (sampled.mean(0) - scaled).abs().mean()
    assert mean < one / 4
