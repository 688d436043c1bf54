"""The callback MaxNorm, a constraint on weights."""

import pytest
import torch
from helpers import bare_trainer, sgd

from distill_lightning.callbacks.max_norm import MaxNorm
from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.methods.baseline import Baseline
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.optimizers import FineTuning


def lengths(network) -> list[torch.Tensor]:
    weights = [m.weight for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    return [weight.detach().flatten(1).norm(dim=1) for weight in weights]


def test_no_vector_is_longer_and_short_ones_are_left_alone():
    torch.manual_seed(0)
    network = ConvNet(width=4)
    method = Baseline(network, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    before = lengths(network)
    limit = float(torch.cat(before).median())
    bias = network[-1].bias.detach().clone()
    trainer = bare_trainer(max_epochs=1, callbacks=[MaxNorm(limit)])
    trainer.fit(method, datamodule=Digits(batch_size=500))
    for old, new in zip(before, lengths(network), strict=True):
        assert torch.allclose(new, old.clamp(max=limit), atol=1e-6)
    assert torch.equal(network[-1].bias, bias)


def test_a_limit_must_be_positive():
    with pytest.raises(InputError, match="limit is 0"):
        MaxNorm(0)


def test_weights_that_are_not_trained_are_left():
    frozen, later = FineTuning(frozen=["1.weight"]), FineTuning(head_first=1, head=["5.*"])
    for fine_tuning in (frozen, later):
        network = LeNet300100(image_size=8)
        first = network[1].weight.detach().clone()
        method = Baseline(network, optimizer=sgd, fine_tuning=fine_tuning)
        bare_trainer(max_epochs=1, limit_train_batches=2, callbacks=[MaxNorm(0.01)]).fit(method, Digits(batch_size=64))
        assert network[1].weight.equal(first)
        assert torch.linalg.vector_norm(network[5].weight, dim=1).max() < 0.0101
