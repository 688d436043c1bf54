"""Loading weights into a network: all of them or none."""

import copy

import pytest
import torch
from helpers import same

from distill_lightning.errors import InputError
from distill_lightning.models.convnet import ConvNet
from distill_lightning.weights import load_weights, must_fit


def test_all_of_them_go_in_buffers_too():
    given, network = ConvNet(), ConvNet()
    given(torch.randn(4, 1, 8, 8))
    assert not same(dict(given.state_dict()), dict(network.state_dict()))
    load_weights(network, given.state_dict(), "the file x")
    assert same(dict(given.state_dict()), dict(network.state_dict()))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            lambda w: w | {"0.weight": torch.zeros(3)},
            r"its 0\.weight is \(3,\), expected \(16, 1, 3, 3\): it is of another",
        ),
        (lambda w: ConvNet(num_classes=7).state_dict(), "of another network, or of other classes"),
        (lambda w: w | {"extra": torch.zeros(3)}, r"extra is in only one of them \(1 such\)"),
        (lambda w: {k: v for k, v in w.items() if "0." not in k}, r"0\.\w+ is in only one of them \(\d such\)"),
        (lambda w: {}, r"is in only one of them"),
    ],
)
def test_or_none(weights, message):
    network = ConvNet()
    before, given = copy.deepcopy(dict(network.state_dict())), weights(ConvNet().state_dict())
    for put in (load_weights, must_fit):
        with pytest.raises(InputError, match=f"^the file x does not fit this ConvNet: .*{message}"):
            put(network, given, "the file x")
    assert same(before, dict(network.state_dict()))


def test_what_fits_is_not_put_in_when_only_asked():
    given, network = ConvNet(), ConvNet()
    before = copy.deepcopy(dict(network.state_dict()))
    must_fit(network, given.state_dict(), "the file x")
    assert same(before, dict(network.state_dict()))
