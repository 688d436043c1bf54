"""Methods with a teacher's logits: their golden values, which the losses' tests explain, and bad options."""

import pytest
import torch
from helpers import at, bare_trainer, batch_of, make
from torch import nn

from distill_lightning.data.digits import Digits
from distill_lightning.data.mixing import Mixup
from distill_lightning.errors import InputError
from distill_lightning.methods.dist import DIST
from distill_lightning.methods.dkd import DKD
from distill_lightning.methods.kd import KD
from distill_lightning.values import TeacherOutput

S = torch.tensor([[2, -1, 0.5, 0], [0, 1.5, -0.5, 1], [-1, 0, 3, 0.5]])
T = torch.tensor([[3, 0, 1, -1], [1, 2, 0, -1], [0, 1, 2, 2.5]])
CE = 0.385922
BATCH = batch_of(torch.zeros(3, 1, 8, 8), torch.arange(3), teacher=TeacherOutput(T))


class Says(nn.Module):
    """A network that gives these logits for any three pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(S.clone())

    def forward(self, images):
        return self.logits + 0


@pytest.mark.parametrize(
    ("method", "golden"),
    [
        (KD(Says(), temperature=2, soft_weight=9, standardise=True), 2.414967385),
        (DKD(Says(), warmup_epochs=0), CE + 3.640694759),
        (DKD(Says(), beta=2, hard_weight=0, warmup_epochs=1), 1.100809737),
        (DKD(Says(), beta=2, hard_weight=0, warmup_epochs=20), 1.100809737 * 0.25),  # the fifth epoch
        (DKD(Says(), temperature=2, alpha=9, beta=72, standardise=True, hard_weight=0), 24.331748255 * 0.25),
        (DIST(Says()), 23.407019183),
        (DIST(Says(), temperature=1, inter_weight=1, intra_weight=1, hard_weight=0), 0.734548680),
    ],
)
def test_golden_values(method, golden):
    output = method.training_loss(BATCH, at(epoch=4))
    assert sum(output.terms.values()).item() == pytest.approx(golden, rel=2e-6)
    assert output.logits.equal(S)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (DKD, {"alpha": 0.0, "beta": 0.0, "hard_weight": 0.0}),
        (DKD, {"temperature": 0.0}),
        (DKD, {"warmup_epochs": -1}),
        (DIST, {"inter_weight": 0.0, "intra_weight": 0.0, "hard_weight": 0.0}),
        (DIST, {"inter_weight": -1.0}),
    ],
)
def test_bad_options(method, options):
    with pytest.raises(InputError, match=method.__name__):
        method(Says(), **options)


def test_a_mixture_has_no_label_for_dkd():
    with pytest.raises(InputError, match="DKD needs pictures of one sample each, without mixing: leave data.mix out"):
        bare_trainer(max_epochs=1).fit(make("dkd"), datamodule=Digits(mix=Mixup()))


def test_the_weight_of_dkd_grows_over_the_first_epochs():
    method = DKD(Says(), warmup_epochs=4, hard_weight=0)
    soft = [method.training_loss(BATCH, at(epoch=epoch)).terms["soft"].item() for epoch in range(6)]
    assert [value / soft[-1] for value in soft] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
