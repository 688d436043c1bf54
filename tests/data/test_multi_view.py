"""Made data with two views of each class, its network, dropped patches, and samples of floats."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import bare_trainer
from torch import Tensor

from distill_lightning.data.augment import ColorJitter, Draws, RandomCrop, RandomFlip
from distill_lightning.data.contact_sheet import contact_sheet
from distill_lightning.data.drop_patches import DropPatches
from distill_lightning.data.multi_view import RHO, MultiView, draw_shares, draw_weights
from distill_lightning.data.sources import MemorySource
from distill_lightning.errors import InputError
from distill_lightning.methods.baseline import Baseline
from distill_lightning.models.multi_view import MultiViewNet, smooth_relu
from distill_lightning.theory.multi_view import learned


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_views_are_orthonormal_and_a_function_of_the_seed():
    features = MultiView(data_seed=3).features
    rows = features.flatten(0, 1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(10), atol=1e-6, rtol=0)
    assert torch.equal(features, MultiView(data_seed=3, samples=7).features)
    assert not torch.equal(features, MultiView(data_seed=4).features)


def test_weights_of_the_views():
    labels = torch.randint(5, (2000,), generator=generator())
    weights = draw_weights(labels, 5, 0.3, generator(1)).view(2000, 5, 2)
    own, others = weights[torch.arange(2000), labels], weights[torch.arange(5) != labels[:, None]]
    single = (own == RHO).any(1)
    assert abs(single.sum() - 600) < 3 * math.sqrt(2000 * 0.3 * 0.7)
    assert not (own == RHO).all(1).any()
    assert own[~single].min() >= 1 and own.max() < 1.5
    assert others.max() <= 0.4 and abs(float((others == 0).float().mean()) - 0.5) < 0.02
    weak = (own[single] == RHO).float().mean(0)
    assert 0.4 < weak[0] < 0.6


@pytest.mark.parametrize("own_patches", [True, False])
def test_the_two_views_of_the_label_never_share_a_patch(own_patches):
    """Where they may, as in the second case, the effect that the data are made for is gone."""
    labels = torch.randint(5, (500,), generator=generator())
    shares = draw_shares(labels, 5, 8, own_patches, generator(1))
    torch.testing.assert_close(shares.sum(2), torch.ones(500, 10))
    assert (shares > 0).sum(2).max() == 2
    of_label = shares.view(500, 5, 2, 8)[torch.arange(500), labels] > 0
    shared = of_label.all(1).any(1)
    assert not shared.any() if own_patches else shared.float().mean() > 0.1
    if own_patches:
        rest = shares.view(500, 5, 2, 8)[torch.arange(5) != labels[:, None]].view(500, 8, 8) > 0
        assert not (rest.any(1) & of_label.any(1)).any()


def test_the_parts_and_their_shape():
    data = MultiView(samples=30, patches=7, dimension=12, num_classes=3, single_view=0.5)
    data.setup("fit")
    data.setup("test")
    source = data.training_split.source
    assert source.images.shape == (30, 12, 3, 3) and source.images.dtype == torch.float32
    assert not source.images.flatten(2)[:, :, 7:].any()
    assert (len(data.training_split), len(data.val), len(data.test)) == (30, 1000, 2000)
    assert data.num_classes == 3 and data.info.has_floats
    # both views are in a validation sample, one of them in a test sample
    for split, fewest, most in ((data.val, 1.6, 9.0), (data.test, 0.7, 1.9)):
        patches = split.source.images.flatten(2).transpose(1, 2)
        found = torch.einsum("npd,kvd->nkv", patches, data.features)[torch.arange(len(patches)), split.labels]
        assert fewest < float(found.sum(1).mean()) < most


def test_floats_reach_the_network_as_they_are():
    data = MultiView(samples=20, batch_size=20)
    data.setup("fit")
    batch = next(iter(data.train_loader_from(lambda: (0, 0))))
    assert torch.equal(batch.images, data.training_split.source.images[batch.index])
    assert contact_sheet(data, 4)[:4] == b"\x89PNG"


def test_transforms_of_bytes_are_refused_for_floats():
    for option in ("augment", "eval_transforms"):
        with pytest.raises(InputError, match=f"data.{option}: ColorJitter takes pictures of bytes"):
            MultiView(samples=20, **{option: [ColorJitter()]}).setup("fit")
    MultiView(samples=20, augment=[RandomFlip(), RandomCrop(padding=1), DropPatches()]).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 9}, "dimension is 9"),
        ({"patches": 5}, "patches is 5: it must be 6 or more"),
        ({"single_view": 1.5}, "single_view is 1.5"),
        ({"pictures": "x"}, "no meaning with MultiView"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        MultiView(**options)


# Dropped patches


def test_patches_are_dropped_independently_and_the_same_for_the_same_view():
    images = torch.ones(400, 2, 3, 3)
    index = torch.arange(400)

    def dropped(view: int, seed: int = 0, images: Tensor = images, **options: float) -> Tensor:
        return DropPatches(**options)(images, Draws(seed, torch.full_like(index, view), index))

    first = dropped(0, probability=0.3)
    assert torch.equal(first, dropped(0, probability=0.3))
    assert not torch.equal(first, dropped(1, probability=0.3))
    assert torch.equal(first[:, 0], first[:, 1])
    assert abs(float((first == 0).float().mean()) - 0.3) < 3 * math.sqrt(0.21 / 3600)
    assert torch.equal(dropped(0, probability=0.0), images) and not dropped(0, probability=1.0).any()
    pixels = dropped(0, images=torch.full((400, 1, 5, 5), 7, dtype=torch.uint8), size=2)
    assert pixels.dtype == torch.uint8 and set(pixels.unique().tolist()) == {0, 7}
    assert torch.equal(pixels[:, :, 0, 0], pixels[:, :, 1, 1]) and pixels.shape == (400, 1, 5, 5)


# The network


def test_the_activation():
    z = torch.tensor([-1.0, 0.0, 0.5, 1 - 1e-9, 2.0], dtype=torch.float64, requires_grad=True)
    values = smooth_relu(z, 4, 1)
    torch.testing.assert_close(values, torch.tensor([0, 0, 0.015625, 0.25, 1.25]).double())
    values.sum().backward()
    torch.testing.assert_close(z.grad, torch.tensor([0, 0, 0.125, 1, 1]).double())
    odd = torch.linspace(-1, 3, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: smooth_relu(x + 0.01, 3, 0.7), odd)


def test_the_network_sums_neurons_and_patches():
    network = MultiViewNet(num_classes=3, in_channels=4, neurons=2, init_std=1.0).double()
    images = torch.randn(5, 4, 2, 2, dtype=torch.float64)
    weights = network.neurons.weight.view(3, 2, 4)
    found = network(images)
    for sample in range(5):
        for k in range(3):
            patches = [images[sample, :, row, column] for row in range(2) for column in range(2)]
            expected = sum(smooth_relu(w @ x, 4, 1) for w in weights[k] for x in patches)
            torch.testing.assert_close(found[sample, k], expected)


def test_a_view_counts_as_learned_from_half_of_the_stronger_one():
    assert learned(torch.tensor([[5.0, 2.6], [1.0, 4.0], [0.0, 3.0]])).tolist() == [
        [True, True], [False, True], [False, True],
    ]  # fmt: skip


def test_the_trainer_does_the_steps_of_a_plain_loop():
    torch.manual_seed(0)
    network = MultiViewNet()
    plain = MultiViewNet()
    plain.load_state_dict(network.state_dict())
    data = MultiView(samples=60, batch_size=60)
    method = Baseline(network, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=2.0))
    bare_trainer(max_epochs=25, num_sanity_val_steps=0, limit_val_batches=0).fit(method, datamodule=data)
    images, labels = data.training_split.source.images, data.training_split.labels
    for _ in range(25):
        gradient = torch.autograd.grad(F.cross_entropy(plain(images), labels), plain.neurons.weight)[0]
        with torch.no_grad():
            plain.neurons.weight -= 2.0 * gradient
    torch.testing.assert_close(method.model.neurons.weight, plain.neurons.weight, atol=1e-4, rtol=1e-3)


def test_a_source_of_floats_has_no_normalisation():
    mean, std = MemorySource(torch.randn(4, 3, 2, 2)).mean_and_std()
    assert not mean.any() and torch.equal(255 * std, torch.ones(3))
