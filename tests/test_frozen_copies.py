"""Frozen copies of a network at earlier steps."""

import copy

import torch
from torch import nn

from distill_lightning.frozen_copies import FrozenCopies

X = torch.randn(3, 2)


def state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_each_answers_with_its_own_weights():
    network, copies, states, answers = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)), FrozenCopies(), [], []
    for _ in range(2):
        network.train()(X)  # moves the running statistics
        network[0].weight.data.mul_(2)
        states.append(state_of(network))
        answers.append(network.eval()(X))
    network.train()
    made = copies.networks(network, states)
    for frozen, answer in zip(made, answers, strict=True):
        assert frozen(X).equal(answer)
        assert not frozen.training and not any(p.requires_grad for p in frozen.parameters())
    assert network.training and network[0].weight.requires_grad


def test_a_state_that_is_asked_for_again_is_not_copied_again():
    network, copies = nn.Linear(2, 4), FrozenCopies()
    first, second = state_of(network), state_of(network)
    (one,) = copies.networks(network, [first])
    again, other = copies.networks(network, [first, second])
    assert again is one and other is not one
    assert copies.networks(network, [second]) == [other]
    (anew,) = copies.networks(network, [first])  # it was let go
    assert anew is not one
    assert copies.networks(network, []) == []


def test_they_use_the_memory_of_the_state():
    network, copies = nn.Linear(2, 4), FrozenCopies()
    state = state_of(network)
    (frozen,) = copies.networks(network, [state])
    assert frozen.weight.data_ptr() == state["weight"].data_ptr() != network.weight.data_ptr()


def test_a_copy_of_a_method_makes_its_own():
    network, copies = nn.Linear(2, 4), FrozenCopies()
    state = state_of(network)
    (frozen,) = copies.networks(network, [state])
    (other,) = copy.deepcopy(copies).networks(network, [state])
    assert other is not frozen
