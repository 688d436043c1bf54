"""Losses of groups, and the learned temperature: values, gradients, and what goes wrong without care. Golden values are
from float64 by independent formulas and by the authors' functions; S, T and Y are those of ``test_losses``.
"""

import pytest
import torch
import torch.nn.functional as F
from test_losses import S, T, Y

from distill_lightning import losses

C = torch.tensor([[1, 0, 0, 0], [0, 0, 2, -1], [0, 1, 1, 0]], dtype=torch.float64)
GATES = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
ATTENTION = torch.tensor([[0.6, 0.4], [0.3, 0.7]], dtype=torch.float64)
RAW = torch.ones((), dtype=torch.float64)
GROUP = losses.weighted_logits([S, T, C], GATES)


def okddip(s, t, attention, leader):
    return losses.okddip([s, t], attention, leader, temperature=3)


def leaves(*tensors):
    return [tensor.clone().requires_grad_() for tensor in tensors]


def test_golden_values():
    ce = sum(losses.cross_entropy(z, Y) for z in (S, T, C, GROUP))
    assert ce.item() == pytest.approx(3.013896980, abs=1e-8)
    assert losses.one([S, T, C], GROUP, temperature=3).item() == pytest.approx(0.838499995, abs=1e-8)
    assert okddip(S, T, ATTENTION, C).item() == pytest.approx(0.820891677, abs=1e-8)
    assert okddip(S, T, ATTENTION.expand(3, 2, 2), C).item() == pytest.approx(0.820891677, abs=1e-8)
    (raw,) = leaves(RAW)
    value = losses.ctkd(S, T, raw)
    value.backward()
    assert value.item() == pytest.approx(0.537549863, abs=1e-8)
    assert raw.grad.item() == pytest.approx(-5.42922e-4, abs=1e-8)  # not that of the loss: its opposite


def test_kdcl():
    assert losses.kdcl([S, T], Y, temperature=2).item() == pytest.approx(0.480105351, abs=1e-8)
    assert losses.kdcl([S, T], Y, temperature=2, target="naive").item() == pytest.approx(0.491432894, abs=1e-8)
    naive = losses.kdcl_target([S, T], Y, "naive")
    better = [S if F.cross_entropy(S[i], Y[i]) < F.cross_entropy(T[i], Y[i]) else T for i in range(3)]
    assert torch.equal(naive, torch.stack([one[i] for i, one in enumerate(better)]))
    assert {id(one) for one in better} == {id(S), id(T)}, "each is the better one somewhere"
    best = losses.kdcl_target([S, T, C], Y, "min_logit")
    assert not best.gather(1, Y[:, None]).any()  # of the label itself
    cross_entropy = torch.stack([F.cross_entropy(z, Y, reduction="none") for z in (S, T, C)])
    assert (F.cross_entropy(best, Y, reduction="none") <= cross_entropy.amin(0)).all()
    assert torch.autograd.gradcheck(lambda s: losses.one([s, T], best, temperature=2), leaves(S))
    s, t = leaves(S, T)
    losses.kdcl([s, t], Y, temperature=2).backward()
    of_one = leaves(S)[0]
    losses.kd(of_one, losses.kdcl_target([S, T], Y, "min_logit"), temperature=2).backward()
    assert torch.allclose(s.grad, of_one.grad), "no gradient flows through the target"


def test_pcl():
    """Each member learns from the group, and from the means of the others, not from its own."""
    means = [S.roll(1, 0), T.roll(1, 1), 2 * C]
    assert losses.pcl([S, T, C], GROUP, means, temperature=3).item() == pytest.approx(5.383880794, abs=1e-8)
    assert losses.pcl([S, T], S, [T, S], temperature=3).item() == pytest.approx(losses.kd(T, S, temperature=3).item())

    def of_members(s, t):
        return losses.pcl([s, t], GROUP, means[:2], temperature=3)

    assert torch.autograd.gradcheck(of_members, leaves(S, T))
    s, t, group, mean = leaves(S, T, GROUP, means[0])
    losses.pcl([s, t], group, [mean, T], temperature=3).backward()
    assert s.grad.abs().max() > 0 and group.grad is None and mean.grad is None


def test_several_teachers_are_weighted_by_sample():
    teachers = torch.stack([T, T.roll(1, 1)])
    assert losses.ca_mkd(S, teachers, Y, temperature=4).item() == pytest.approx(0.721587945, abs=1e-8)
    assert torch.autograd.gradcheck(lambda s: losses.ca_mkd(s, teachers, Y, temperature=4), leaves(S))
    alike = losses.ca_mkd(S, torch.stack([T, T, T]), Y, temperature=4)
    assert alike.item() == pytest.approx(losses.kd(S, T, temperature=4).item())  # the weights have the sum 1
    wrong = T.clone()
    wrong[
        0, 0
    ] = -50.0  # a teacher that is wrong with great certainty counts nothing; in a mean of logits it counts most
    first = slice(0, 1)
    value = losses.ca_mkd(S[first], torch.stack([T, wrong])[:, first], Y[first], temperature=4)
    assert value.item() == pytest.approx(losses.kd(S[first], T[first], temperature=4).item())
    with pytest.raises(ValueError, match="there is 1 teacher"):
        losses.ca_mkd(S, teachers[:1], Y, temperature=4)


def test_the_ramp():
    assert [losses.ramp(e, 80) for e in (0, 40, 80, 200)] == pytest.approx([0.00673795, 0.2865048, 1, 1], rel=1e-6)
    assert losses.ramp(0, 0) == 1


def test_gradients():
    assert torch.autograd.gradcheck(lambda s, t, g: losses.weighted_logits([s, t], g), leaves(S, T, GATES[:, :2]))
    assert torch.autograd.gradcheck(lambda s, t: losses.one([s, t], GROUP, temperature=3), leaves(S, T))
    assert torch.autograd.gradcheck(okddip, leaves(S, T, ATTENTION.repeat(3, 1, 1), C))
    assert torch.autograd.gradcheck(lambda s: losses.ctkd(s, T, RAW), leaves(S))
    s, raw = leaves(S, RAW)
    losses.ctkd(s, T, raw, strength=0.25).backward()
    step = 1e-6
    slope = (losses.ctkd(S, T, RAW + step) - losses.ctkd(S, T, RAW - step)) / (2 * step)
    assert raw.grad.item() == pytest.approx(-0.25 * slope.item(), rel=1e-5)


def test_the_group_of_one_learns_nothing_from_its_members():
    """The gate learns from the labels alone; a gradient through the target would pull it to the worst branch."""
    s, t, gates = leaves(S, T, GATES[:, :2])
    losses.one([s, t], losses.weighted_logits([s, t], gates), temperature=3).backward()
    assert gates.grad is None and s.grad.abs().max() > 0
    alone = S.clone().requires_grad_()
    losses.kd(alone, losses.weighted_logits([S, T], GATES[:, :2]), temperature=3).backward()
    assert torch.allclose(s.grad, alone.grad)


def test_the_attention_of_okddip_learns_and_the_leader_moves_the_peers():
    s, t, attention, leader = leaves(S, T, ATTENTION, C)
    okddip(s, t, attention, leader).backward()
    assert attention.grad.abs().max() > 1e-3
    of_leader = losses.okddip([S, T], torch.eye(2, dtype=torch.float64), leader, temperature=3)
    only_mean = losses.kd(C, (S + T) / 2, temperature=3)  # peers that listen to themselves alone have no loss
    assert of_leader.item() == pytest.approx(only_mean.item())
    s, t = leaves(S, T)
    losses.okddip([s, t], torch.eye(2, dtype=torch.float64), C, temperature=3).backward()
    assert s.grad.abs().max() > 1e-3


def test_zero_where_all_agree():
    assert (
        losses.one([S, S], losses.weighted_logits([S, S], GATES[:, :2] / GATES[:, :2].sum(1, True)), temperature=3)
        < 1e-12
    )
    assert okddip(S, S, ATTENTION, S) < 1e-12
    assert losses.ctkd(S, S, RAW) < 1e-12


def test_the_order_of_branches_changes_nothing():
    """Nor a shift of the logits of one."""
    assert losses.one([C, S + 2, T], GROUP, temperature=3).item() == pytest.approx(0.838499995)
    assert okddip(T - 1, S - 1, ATTENTION.flip(0, 1), C).item() == pytest.approx(0.820891677)


def test_the_learned_temperature_makes_the_loss_worse():
    raw = RAW.clone().requires_grad_()
    optimizer = torch.optim.SGD([raw], lr=50)
    before = losses.ctkd(S, T, raw).item()
    for _ in range(20):
        optimizer.zero_grad()
        losses.ctkd(S, T, raw).backward()
        optimizer.step()
    assert losses.ctkd(S, T, raw).item() > before + 1e-4


def test_a_temperature_has_one_graph():
    torch._dynamo.reset()
    compiled = torch.compile(losses.ctkd, fullgraph=True, backend="eager")
    found, expected = leaves(RAW, RAW)
    compiled(S, T, found, strength=0.5).backward()
    losses.ctkd(S, T, expected, strength=0.5).backward()
    assert torch.allclose(found.grad, expected.grad)


def test_the_slope_of_the_temperature_is_right_in_float32():
    exact, found = leaves(RAW, RAW.float())
    losses.ctkd(S, T, exact).backward()
    losses.ctkd(S.float(), T.float(), found).backward()
    assert found.grad.item() == pytest.approx(exact.grad.item(), rel=1e-5)


def test_half_precision_is_left():
    with torch.autocast("cpu", torch.bfloat16):
        value = losses.ctkd(S.bfloat16(), T.bfloat16(), RAW.float())
    exact = losses.ctkd(S.bfloat16().double(), T.bfloat16().double(), RAW)
    assert value.dtype == torch.float32 and value.item() == pytest.approx(exact.item(), rel=1e-3)


def test_targets_of_peers_that_nearly_agree_keep_their_digits():
    """Under autocast the product of attention and logits would be in bfloat16, and what is left of the term would be
    rounding.
    """
    torch.manual_seed(0)
    common = 5 * torch.randn(64, 10)
    peers = [common + 0.05 * torch.randn(64, 10) for _ in range(3)]
    attention, leader = torch.randn(64, 3, 3).softmax(2), common + 0.05 * torch.randn(64, 10)
    given = [one.requires_grad_() for one in (*peers, attention, leader)]
    exact = [one.detach().double().requires_grad_() for one in given]
    with torch.autocast("cpu", torch.bfloat16):
        losses.okddip(given[:3], given[3], given[4], temperature=3).backward()
    losses.okddip(exact[:3], exact[3], exact[4], temperature=3).backward()
    for mine, right in zip(given, exact, strict=True):
        assert (mine.grad - right.grad).norm() < 0.01 * right.grad.norm()


@pytest.mark.parametrize("name", ["one", "pcl", "kdcl", "okddip", "mutual", "symmetric_kl", "kd", "cross_entropy"])
def test_every_loss_computes_in_full_precision(name):
    """In another program's loop the logits may be in bfloat16."""
    torch.manual_seed(0)
    logits = [torch.randn(16, 10).bfloat16() for _ in range(3)]
    labels = torch.randint(0, 10, (16,))

    def value(z, attention):
        arguments = {
            "one": (z, z[0]), "pcl": (z, z[0], z), "kdcl": (z, labels), "okddip": (z, attention, z[0]), "mutual": (z,),
            "cross_entropy": (z[0], labels),
        }.get(name, z[:2])  # fmt: skip
        more = {} if name in ("mutual", "cross_entropy") else {"temperature": 2.0}
        found = getattr(losses, name)(*arguments, **more)
        return sum(found) if isinstance(found, list) else found

    weights = torch.rand(16, 3, 3).softmax(2).bfloat16()
    exact = value([one.double() for one in logits], weights.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = value(logits, weights)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(exact.item(), rel=1e-5)


def test_the_soft_targets_of_wsld_stop_where_the_student_is_better():
    sure, wrong = torch.tensor([[9.0, 0, 0]]), torch.tensor([[0.0, 9, 0]])
    label = torch.tensor([0])
    plain = 16 * F.cross_entropy(wrong / 4, (sure / 4).softmax(1))
    assert losses.wsld(wrong, sure, label, temperature=4).item() == pytest.approx(plain.item(), rel=1e-3)
    assert losses.wsld(sure, wrong, label, temperature=4).item() == pytest.approx(0, abs=0.01)
