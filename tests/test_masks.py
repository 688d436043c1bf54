"""Masks: exact counts, ties, nesting, and comparison with torch's own pruning."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from distill_lightning import masks

LENET = {"1": 784 * 300, "2": 300 * 100, "out": 1000}
CONV2 = {"c1": 3 * 64 * 9, "c2": 64 * 64 * 9, "f1": 16384 * 256, "f2": 256 * 256, "out": 2560}
CONV4 = {
    "c1": 3 * 64 * 9, "c2": 64 * 64 * 9, "c3": 64 * 128 * 9, "c4": 128 * 128 * 9,
    "f1": 8192 * 256, "f2": 256 * 256, "out": 2560,
}  # fmt: skip


def rate(name: str) -> float:
    """Appendix G of the paper: convolutions and the output 10 %, the other linear layers 20 %."""
    return 0.1 if name.startswith("c") or name == "out" else 0.2


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (LENET, {1: 80.04, 3: 51.28, 5: 32.87, 7: 21.07, 9: 13.52, 11: 8.68, 12: 6.95, 14: 4.47, 15: 3.58, 16: 2.87, 20: 1.19}),  # noqa: E501
        (CONV2, {1: 80.1, 3: 51.41, 5: 33.02, 7: 21.23, 9: 13.66, 11: 8.81, 12: 7.08, 14: 4.57, 15: 3.68, 16: 2.97, 20: 1.26}),  # noqa: E501
        (CONV4, {1: 81.08, 3: 53.55, 5: 35.61, 7: 23.88, 9: 16.16, 11: 11.06, 12: 9.18, 14: 6.40, 15: 5.37, 16: 4.51, 20: 2.34}),  # noqa: E501
    ],
)  # fmt: skip
def test_densities_of_the_paper(layers, expected):
    for rounds, percent in expected.items():
        left = sum(masks.kept_after(count, rate(name), rounds) for name, count in layers.items())
        assert 100 * left / sum(layers.values()) == pytest.approx(percent, abs=0.0051)


def test_rounding_does_not_add_up():
    assert masks.kept_after(1000, 0.1, 20) == 122  # exactly 121.6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exactly_so_many_whatever_the_ties(dtype):
    torch.manual_seed(0)
    weights = {"a": torch.randn(100, 500).to(dtype), "b": torch.zeros(50, 20, dtype=dtype)}
    kept = masks.smallest(weights, masks.ones(weights), 40_000)
    assert sum(int(mask.sum()) for mask in kept.values()) == 40_000
    assert all(torch.equal(kept[k], again) for k, again in masks.smallest(weights, masks.ones(weights), 40_000).items())
    # of equal magnitudes the first are pruned
    equal = {"x": torch.tensor([1.0, -1.0, 1.0, 2.0])}
    assert masks.smallest(equal, masks.ones(equal), 2)["x"].tolist() == [False, False, True, True]


def test_nothing_comes_back_and_the_largest_stay():
    torch.manual_seed(0)
    weights = {"a": torch.randn(40, 30)}
    first = masks.smallest(weights, masks.ones(weights), 600)
    others = {"a": torch.randn(40, 30)}
    second = masks.smallest(others, first, 300)
    assert not (second["a"] & ~first["a"]).any()
    assert others["a"][second["a"]].abs().min() >= others["a"][first["a"] & ~second["a"]].abs().max()
    with pytest.raises(ValueError, match="cannot be kept"):
        masks.smallest(others, second, 301)


def test_torch_prunes_the_same():
    torch.manual_seed(0)
    layers = [nn.Linear(30, 20), nn.Conv2d(3, 8, 3)]
    weights = {str(n): layer.weight.detach().clone() for n, layer in enumerate(layers)}
    total = sum(weight.numel() for weight in weights.values())
    together = masks.smallest(weights, masks.ones(weights), total - 200)
    prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=200)
    for n, layer in enumerate(layers):
        assert torch.equal(together[str(n)], layer.weight_mask.bool())
    alone = nn.Linear(30, 20)
    weight = {"w": alone.weight.detach().clone()}
    prune.l1_unstructured(alone, "weight", amount=150)
    assert torch.equal(masks.smallest(weight, masks.ones(weight), 450)["w"], alone.weight_mask.bool())


def test_controls_keep_as_many():
    generator = torch.Generator().manual_seed(0)
    found = {"a": torch.rand(50, 40, generator=generator) < 0.2, "b": torch.rand(10, 10, generator=generator) < 0.9}
    shuffled = masks.random_like(found, generator)
    assert all(shuffled[k].sum() == found[k].sum() and not torch.equal(shuffled[k], found[k]) for k in found)
    pooled = masks.random_like(found, generator, pooled=True)
    assert masks.density(pooled) == masks.density(found)
    assert pooled["b"].sum() < found["b"].sum()  # spread evenly over all


def test_a_density_is_reached():
    factor = masks.rate_factor(LENET, {k: rate(k) for k in LENET}, 7, 0.1)
    left = sum(count * (1 - factor * rate(name)) ** 7 for name, count in LENET.items())
    assert left / sum(LENET.values()) == pytest.approx(0.1, abs=1e-9)
    with pytest.raises(ValueError, match="cannot be reached"):
        masks.rate_factor(LENET, {k: rate(k) for k in LENET}, 1, 0.0001)


@pytest.mark.parametrize("shape", [(1,), (8,), (3, 5), (2, 3, 3, 3)])
def test_packing(shape):
    mask = torch.rand(shape) < 0.5
    packed = masks.pack(mask)
    assert packed.dtype == torch.uint8 and len(packed) == -(-mask.numel() // 8)
    assert torch.equal(masks.unpack(packed, shape), mask)
    assert masks.pack(torch.tensor([True] + [False] * 7)).tolist() == [128]


def test_overlap():
    a, b = {"x": torch.tensor([True, True, False])}, {"x": torch.tensor([True, False, True])}
    assert masks.overlap(a, b) == pytest.approx(1 / 3)
    assert masks.overlap(a, a) == 1
