"""Masks before training: scores by hand, no layer dies by SynFlow, and the network stays as it is."""

import copy

import pytest
import torch
from helpers import same
from torch import nn

from distill_lightning import masks as masking
from distill_lightning.errors import InputError
from distill_lightning.lottery.at_start import kept_at, masks_at_start, snip, synflow
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.values import Batch


def batch_of(images: torch.Tensor, labels: list[int]) -> Batch:
    return Batch(images, torch.tensor(labels), torch.arange(len(labels)), num_new=len(labels))


def whole(network: nn.Module) -> masking.Masks:
    return masking.ones({name: p.detach() for name, p in network.named_parameters() if p.ndim > 1})


def test_snip_is_the_weight_times_its_gradient():
    """Logits (-1.5, 2.5) and label 0: dL/dW = (p - onehot) x^T with p_0 = 1 / (1 + e^4), x = (1, 2)."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[0.5, -1.0], [2.0, 0.25]]))
    batch = batch_of(torch.tensor([1.0, 2.0]).view(1, 1, 1, 2), [0])
    scores = snip(network, whole(network), batch)["1.weight"]
    torch.testing.assert_close(scores, torch.tensor([[0.491007, 1.964028], [1.964028, 0.491007]]))
    found = masks_at_start("snip", network, whole(network), 0.5, batch)["1.weight"]
    assert found.tolist() == [[False, True], [True, False]]


def test_snip_takes_the_new_samples_alone():
    network, images = LeNet300100(image_size=8), torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    some = batch_of(images[:4], [0, 1, 2, 3])
    more = batch_of(images, [0, 1, 2, 3, -1, -1])._replace(num_new=4, num_unlabelled=2)
    assert same(snip(network, whole(network), some), snip(network, whole(network), more))


def test_synflow_counts_the_paths_through_a_weight():
    """R = 2 (1 + 2) + 1 (3 + 1/2) = 9.5, which the scores of each layer sum to; biases and signs do not count."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))
        network[3].weight.copy_(torch.tensor([[-2.0, 1.0]]))
    scores = synflow(network, whole(network), (1, 1, 2))
    assert scores["1.weight"].tolist() == [[2.0, 4.0], [3.0, 0.5]] and scores["3.weight"].tolist() == [[6.0, 3.5]]
    left = whole(network) | {"1.weight": torch.tensor([[True, False], [True, True]])}
    assert synflow(network, left, (1, 1, 2))["3.weight"].tolist() == [[2.0, 3.5]]


def test_the_scores_of_synflow_are_conserved_from_layer_to_layer():
    network = ConvNet(width=4)
    sums = [float(one.sum()) for one in synflow(network, whole(network), (1, 8, 8)).values()]
    assert len(sums) == 4 and sums == pytest.approx([sums[0]] * 4, rel=1e-9)


def test_synflow_leaves_a_path_where_other_scores_empty_a_layer():
    network = LeNet300100(image_size=8)
    with torch.no_grad():
        network[5].weight.mul_(1e-3)  # the smallest weights of all are those of the last layer
    batch = batch_of(torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), [*range(10)] * 2)
    left = {
        kind: [int(mask.sum()) for mask in masks_at_start(kind, network, whole(network), 0.002, batch).values()]
        for kind in ("magnitude", "synflow")
    }
    assert left["magnitude"][-1] == 0 and min(left["synflow"]) > 0
    assert sum(left["magnitude"]) == sum(left["synflow"]) == round(0.002 * 50_200)


@pytest.mark.parametrize("kind", ["snip", "synflow", "magnitude", "random"])
def test_the_count_is_exact_and_the_network_is_not_changed(kind):
    network = ConvNet(width=4, dropout=0.5).train()
    before, draws = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    batch = batch_of(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), [*range(8)])
    every = [masks_at_start(kind, network, whole(network), 0.1, batch) for _ in range(2)]
    assert same(*every) and sum(int(mask.sum()) for mask in every[0].values()) == round(0.1 * 1_636)
    assert same(network.state_dict(), before) and network.training
    assert torch.equal(torch.random.get_rng_state(), draws) and all(p.grad is None for p in network.parameters())


def test_the_steps_of_synflow_and_a_density_that_leaves_nothing():
    assert [kept_at(step, 0.01, 10_000) for step in (1, 50, 100)] == [9550, 1000, 100]
    network = ConvNet(width=4)
    with pytest.raises(InputError, match="leaves none of 1636 weights"):
        masks_at_start("random", network, whole(network), 1e-4, batch_of(torch.zeros(1, 1, 8, 8), [0]))
    with torch.no_grad():
        network[0].weight.mul_(float("nan"))
    with pytest.raises(InputError, match="at_start is synflow: the scores of this network are not finite"):
        masks_at_start("synflow", network, whole(network), 0.1, batch_of(torch.zeros(1, 1, 8, 8), [0]))
