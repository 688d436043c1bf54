"""Which weights are pruned, and at which rate."""

import pytest

from distill_lightning import masks
from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.models.resnet import ResNet20


def test_densities_of_the_paper_for_resnet20():
    """P_m of its figures 8 and 42: 3x3 convolutions together at 20 %; shortcuts and output stay, and count as left."""
    network = ResNet20()
    lottery = Lottery(scope="global", leave_out=["head", "stages.1.0.downsample", "stages.2.0.downsample"])
    sizes = dict(network.named_parameters())
    pruned = sum(sizes[name].numel() for name in lottery.rule.rates(network, {}))
    kept = sum(p.numel() for p in sizes.values() if p.ndim > 1) - pruned
    assert (pruned, kept) == (267_696, 3_200)
    for number, percent in {4: 41.7, 6: 27.1, 7: 21.9, 10: 11.8}.items():
        left = masks.kept_after(pruned, 0.2, number) + kept
        assert 100 * left / (pruned + kept) == pytest.approx(percent, abs=0.051)


def test_lenet_on_mnist_has_the_weights_of_the_paper():
    lottery = Lottery(rounds=15)
    rates = lottery.rule.rates(LeNet300100(), {})
    assert rates == {"1.weight": 0.2, "3.weight": 0.2, "5.weight": 0.1}
