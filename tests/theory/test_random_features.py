"""Ridge regression on random features, tangent kernels, and networks that are trained side by side."""

import pytest
import torch
from torch import nn

from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.theory.networks import Networks, Recipe, averaged, cross_entropy, logits_of, train
from distill_lightning.theory.random_features import figure_3, tangent_gates, tangent_kernel
from distill_lightning.theory.ridge import Model, Ridge, side_by_side


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_model(count: int, features: int, seed: int) -> Model:
    return Model(torch.randn(count, features, generator=generator(seed), dtype=torch.float64))


def test_primal_and_dual_ridge_agree_with_the_normal_equations():
    model, targets = random_model(60, 12, 0), torch.randn(40, 3, generator=generator(1), dtype=torch.float64)
    dual = Ridge.of(Model(kernel=model.kernel_with(40)), 40)
    primal = Ridge.of(model, 40)
    trained = model.features[:40]
    for strength in (1e-3, 1.0, 100.0):
        weights = torch.linalg.solve(trained.T @ trained + strength * torch.eye(12).double(), trained.T @ targets)
        for ridge in (primal, dual):
            torch.testing.assert_close(ridge.outputs(strength, targets), model.features @ weights, atol=1e-8, rtol=0)


def test_the_average_as_one_has_all_features_side_by_side():
    models = [random_model(30, 8, seed) for seed in range(3)]
    together = side_by_side(models, 30)
    assert together.features.shape == (30, 24)
    kernels = side_by_side([Model(kernel=model.kernel_with(20)) for model in models], 20)
    torch.testing.assert_close(together.kernel_with(20), kernels.kernel, atol=1e-10, rtol=0)
    assert side_by_side(models, 20).features is None  # more features than samples: the dual


def test_the_best_lambda_is_chosen_on_validation_samples_and_the_smallest_of_equals():
    model = random_model(50, 5, 3)
    labels = (model.features[:, 0] > 0).long()
    targets = torch.nn.functional.one_hot(labels[:20], 2).double() - 0.5
    ridge = Ridge.of(model, 20)
    chosen = ridge.best(targets, labels[20:35])
    scores = [(ridge.outputs(10.0**p, targets)[20:35].argmax(1) == labels[20:35]).sum() for p in range(-6, 5)]
    torch.testing.assert_close(chosen, ridge.outputs(10.0 ** (int(torch.stack(scores).argmax()) - 6), targets))


def test_the_tangent_kernel_is_the_gram_matrix_of_the_gradients():
    inputs = torch.randn(6, 7, generator=generator(), dtype=torch.float64)
    kernel = tangent_kernel(inputs, 5, 4, generator(1))
    padded = nn.functional.normalize(nn.functional.pad(inputs, (0, 1), value=1.0), dim=1)
    draws = generator(1)
    weights = torch.randn(8, 5, generator=draws, dtype=torch.float64, requires_grad=True)
    signs = 2 * torch.randint(2, (5,), generator=draws).double() - 1
    outputs = ((padded @ weights).relu() * signs).sum(1) / 5**0.5
    gradients = [torch.autograd.grad(one, weights, retain_graph=True)[0].flatten() for one in outputs]
    gram = torch.stack(gradients) @ torch.stack(gradients[:4]).T
    torch.testing.assert_close(kernel, gram, atol=1e-10, rtol=0)
    assert tangent_gates(padded, 5, generator(1)).abs().unique().numel() <= 2


def small(members: int) -> Networks:
    return Networks(members, (6, 5, 3), generator())


RECIPE = Recipe(rate=0.1, steps=8, batch=10, decay=0.01, nesterov=True)


def test_networks_side_by_side_are_networks_one_after_the_other():
    inputs, labels = torch.randn(40, 6, generator=generator(1)), torch.randint(3, (40,), generator=generator(2))
    both, alone = small(2), small(1)
    with torch.no_grad():
        for one, other in zip(alone.parameters(), both.parameters(), strict=True):
            one.copy_(other[1:])
    for networks in (both, alone):
        train(networks, inputs, cross_entropy(labels), RECIPE, generator(3))
    torch.testing.assert_close(logits_of(both, inputs)[1], logits_of(alone, inputs)[0])
    assert not torch.allclose(logits_of(both, inputs)[0], logits_of(both, inputs)[1])


def test_the_average_trained_as_one_has_the_gradients_of_its_members():
    """Of equal members each gets the gradient of a network that is trained alone: the factor n."""
    inputs, labels = torch.randn(40, 6, generator=generator(1)), torch.randint(3, (40,), generator=generator(2))
    together, alone = small(3), small(1)
    with torch.no_grad():
        for one, other in zip(together.parameters(), alone.parameters(), strict=True):
            one.copy_(other.expand_as(one))
    train(together, inputs, averaged(labels), RECIPE, generator(3))
    train(alone, inputs, cross_entropy(labels), RECIPE, generator(3))
    torch.testing.assert_close(logits_of(together, inputs)[2], logits_of(alone, inputs)[0], atol=1e-5, rtol=1e-4)


def test_figure_3_is_a_function_of_its_seed():
    def bars(seed: int, kind: str = "dense"):
        return figure_3(Digits(val_size=0), kind, 10, samples=200, members=2, seed=seed).metrics

    first = bars(0)
    assert first == bars(0) != bars(1)
    names = {"one", "ensemble", "plain", "distilled", "self_distilled", "average_as_one"}
    for found in (first, bars(0, "trained")):
        assert {f"accuracy/{name}" for name in names} == found.keys() - {"absorbed"}
        assert all(0.3 < found[f"accuracy/{name}"] <= 1 for name in names)


def test_too_many_samples_are_refused():
    with pytest.raises(InputError, match="samples is 900"):
        figure_3(Digits(val_size=0), samples=900)
