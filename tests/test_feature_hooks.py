"""Hooks that record the output of a part of a network."""

import copy
import pickle

import pytest
import torch
from torch import nn

from distill_lightning.feature_hooks import FeatureHook

X = torch.arange(6.0).reshape(3, 2)


def watched(inputs: bool) -> tuple[nn.Module, FeatureHook]:
    layer, hook = nn.Linear(2, 4), FeatureHook(inputs)
    hook.watch(layer)
    return layer, hook


@pytest.mark.parametrize("inputs", [True, False])
def test_it_holds_what_passed_until_it_is_taken(inputs):
    layer, hook = watched(inputs)
    out = layer(X)
    assert hook.take() is (X if inputs else out)
    with pytest.raises(RuntimeError, match="no batch has passed"):
        hook.take()
    layer(X), layer(X + 1)
    assert hook.take().equal(X + 1 if inputs else layer.eval()(X + 1))  # the last


def test_it_holds_nothing_in_evaluation():
    layer, hook = watched(True)
    with torch.no_grad():
        layer.eval()(X)
    with pytest.raises(RuntimeError, match="in training"):
        hook.take()
    layer.train()(X)
    with torch.no_grad():
        layer.eval()(X + 1)
    assert hook.take() is X


def test_it_holds_what_a_frozen_part_gives_in_training():
    """Fine-tuning holds frozen parts in eval mode, where batch norms keep their statistics."""
    layer, hook = watched(False)
    out = layer.eval()(X)
    assert hook.take() is out


def test_it_passes_on_the_first_part_of_the_rows():
    hook = FeatureHook()
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    hook.watch(network[0])
    other, its_hook = copy.deepcopy((network, hook))
    for here, held in ((network, hook), (other, its_hook)):
        whole = here(X)
        with held.passing_on_first_of(3):
            assert copy.deepcopy(here)(X).shape == (3, 4), "a copy knows nothing of it"
            assert here(X).equal(whole[:1])
            assert held.take().relu().equal(whole)
            with torch.no_grad():
                assert here.eval()(X).equal(whole), "all of them in evaluation"
        assert here.train()(X).equal(whole)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_of_the_network_gives_it_nothing(duplicate):
    layer, hook = watched(False)
    layer(X)
    other = duplicate(layer)
    other(X + 1)
    held = hook.take()
    assert held.equal(layer(X)) and held.requires_grad
    small, large = (len(pickle.dumps(hook)) for hook in (FeatureHook(), hook))
    assert small == large  # what is held is not written
