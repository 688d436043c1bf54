"""Methods with a teacher's logits: their golden values, which the losses' tests explain, and bad options."""

import pytest
import torch
from helpers import at, bare_trainer, batch_of, make
from torch import nn

from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.digits import Digits
from distill_lightning.data.mixing import Mixup
from distill_lightning.errors import InputError
from distill_lightning.methods.ca_mkd import CAMKD
from distill_lightning.methods.ctkd import CTKD
from distill_lightning.methods.dist import DIST
from distill_lightning.methods.dkd import DKD
from distill_lightning.methods.kd import KD
from distill_lightning.methods.nkd import NKD
from distill_lightning.methods.wsld import WSLD
from distill_lightning.models import LeNet300100
from distill_lightning.values import TeacherOutput

S = torch.tensor([[2, -1, 0.5, 0], [0, 1.5, -0.5, 1], [-1, 0, 3, 0.5]])
T = torch.tensor([[3, 0, 1, -1], [1, 2, 0, -1], [0, 1, 2, 2.5]])
CE = 0.385922
TEACHERS = TeacherOutput(T, (), torch.stack([T, T.roll(1, 1)]))
BATCH = batch_of(torch.zeros(3, 1, 8, 8), torch.arange(3), teacher=TEACHERS)


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
        (NKD(Says(), hard_weight=0), 1.903050699),
        (NKD(Says(), temperature=4, soft_weight=2), CE + 2 * 26.660282460),
        (WSLD(Says()), CE + 28.420506613),
        (WSLD(Says(), temperature=2, soft_weight=2.5, hard_weight=0), 7.382803948),
        (CTKD(Says()), 0.1 * CE + 0.9 * 0.537549863),
        (CAMKD(Says()), CE + 0.721587945),
        (CAMKD(Says(), soft_weight=2, hard_weight=0), 2 * 0.721587945),
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
        (NKD, {"soft_weight": 0.0, "hard_weight": 0.0}),
        (NKD, {"gamma": -1.0}),
        (WSLD, {"soft_weight": 0.0, "hard_weight": 0.0}),
        (CTKD, {"soft_weight": 0.0}),
        (CTKD, {"temperature_range": 0.0}),
        (CAMKD, {"soft_weight": 0.0, "hard_weight": 0.0}),
    ],
)
def test_bad_options(method, options):
    with pytest.raises(InputError, match=method.__name__):
        method(Says(), **options)


@pytest.mark.parametrize(
    "name", ["dkd", "nkd", "wsld", "ca_mkd", "cs_kd", "ps_kd", "mr_kd", "tf_kd_reg", "kdcl", "pcl"]
)
def test_a_mixture_has_no_label(name):
    with pytest.raises(InputError, match="needs pictures of one sample each, without mixing: leave data.mix out"):
        bare_trainer(max_epochs=1).fit(make(name), datamodule=Digits(mix=Mixup()))


@pytest.mark.parametrize(("teachers", "mode"), [(1, "online"), (2, "table")])
def test_several_live_teachers_are_needed_to_weigh_them(teachers, mode):
    given = SoftTargets([PlainNetwork(LeNet300100(image_size=8)) for _ in range(teachers)], mode)
    with pytest.raises(
        InputError, match="CAMKD needs the logits of each of several teachers: give SoftTargets"
    ) as error:
        bare_trainer(max_epochs=1, callbacks=[given]).fit(make("ca_mkd"), datamodule=Digits())
    assert len(str(error.value)) < 200


def test_each_of_several_teachers_is_asked_once_a_step():
    """In its own normalisation; the mean of their logits is there, too."""
    networks, calls, batches = [LeNet300100(image_size=8) for _ in range(2)], [], []
    for network in networks:
        network.register_forward_hook(lambda *_: calls.append(1))
    method = make("ca_mkd")
    original = method.training_loss
    method.training_loss = lambda batch, position: (batches.append(batch), original(batch, position))[1]
    given = SoftTargets([PlainNetwork(networks[0]), PlainNetwork(networks[1], mean=[0.1], std=[0.5])])
    bare_trainer(max_epochs=1, callbacks=[given]).fit(method, datamodule=Digits(batch_size=100, train_part=300))
    assert len(calls) == 2 * (len(batches) + 1)  # and a blank picture each, for the classes
    data = Digits()
    data.setup("fit")
    for batch in batches:
        pixels = (batch.images * data.normaliser.std + data.normaliser.mean - 0.1) / 0.5
        with torch.no_grad():
            expected = torch.stack([networks[0](batch.images), networks[1](pixels)])
        assert torch.allclose(batch.teacher.members, expected, atol=1e-4)
        assert torch.allclose(batch.teacher.logits, expected.mean(0), atol=1e-4)


def test_the_reversal_of_ctkd_grows_over_the_first_epochs():
    """The first epoch counts as 1; then the temperature climbs the loss, by the optimizer that lowers it."""
    method = CTKD(Says())
    strengths = [method.strength(epoch) for epoch in (0, 4, 9, 30)]
    assert strengths == pytest.approx([0.02447174, 0.5, 1, 1], abs=1e-7)
    assert CTKD(Says(), reversal_epochs=0).strength(0) == 1
    slopes = []
    for epoch in (0, 30):
        loss = sum(method.training_loss(BATCH, at(epoch=epoch)).terms.values())
        slopes.append(torch.autograd.grad(loss, method.raw_temperature)[0].item())
    assert slopes[1] == pytest.approx(-0.9 * 5.42922e-4, rel=1e-4)
    assert slopes[0] == pytest.approx(slopes[1] * strengths[0], rel=1e-4)


def test_the_weight_of_dkd_grows_over_the_first_epochs():
    method = DKD(Says(), warmup_epochs=4, hard_weight=0)
    soft = [method.training_loss(BATCH, at(epoch=epoch)).terms["soft"].item() for epoch in range(6)]
    assert [value / soft[-1] for value in soft] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
