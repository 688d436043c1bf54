"""Methods without a teacher: the values of their losses, which parts have a gradient, and their memory."""

import math

import pytest
import torch
from helpers import CONFIGS, at, bare_trainer, batch_of, data_info, distill, load, sgd, total, train_loader
from helpers import fit as fit_command
from torch import nn

from distill_lightning.checkpoints import network_weights, read
from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.losses import adjusted, cross_entropy, kd, symmetric_kl
from distill_lightning.methods.byot import BYOT
from distill_lightning.methods.cs_kd import CSKD
from distill_lightning.methods.ddgsd import DDGSD
from distill_lightning.methods.dml import DML
from distill_lightning.methods.kdcl import KDCL
from distill_lightning.methods.memory import put_rows
from distill_lightning.methods.mr_kd import MrKD
from distill_lightning.methods.ps_kd import PSKD
from distill_lightning.methods.snapshot import Snapshot
from distill_lightning.methods.tf_kd_reg import TfKDReg
from distill_lightning.methods.tf_kd_self import TfKDSelf
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.densenet import SmallDenseNet
from distill_lightning.models.early_exit import EarlyExit, trunk
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.models.resnet import ResNet8, ResNet18
from distill_lightning.models.vgg import VGG16
from distill_lightning.models.wide_resnet import WideResNet
from distill_lightning.schedules import CosineCycles
from distill_lightning.values import Batch, TeacherOutput
from distill_lightning.weights import load_weights

S = torch.tensor([[2, -1, 0.5, 0], [0, 1.5, -0.5, 1], [-1, 0, 3, 0.5]])
T = torch.tensor([[3, 0, 1, -1], [1, 2, 0, -1], [0, 1, 2, 2.5]])
Y = torch.tensor([0, 1, 2])


class Given(nn.Module):
    """Gives what it is asked for: pictures of 2x2 pixels are four logits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight.data.copy_(torch.eye(4))

    def forward(self, images):
        return self.head(images.flatten(1) * self.weight)


def batch(*logits: torch.Tensor, **more) -> Batch:
    labels = Y.repeat(len(logits))
    return batch_of(torch.cat(logits).view(-1, 1, 2, 2), labels, index=labels, num_new=3, **more)


def test_tf_kd_self():
    """(1 - a) CE + a T^2 KL."""
    output = TfKDSelf(Given(), temperature=4, alpha=0.9).training_loss(batch(S, teacher=TeacherOutput(T)), at())
    assert total(output) == pytest.approx(0.511808, abs=2e-6)  # the same as KD's with 0.1 and 0.9


def test_tf_kd_reg():
    assert total(TfKDReg(Given(), form="code").training_loss(batch(S), at())) == pytest.approx(0.411901, abs=2e-6)
    assert total(TfKDReg(Given(), form="paper").training_loss(batch(S), at())) == pytest.approx(0.492299, abs=2e-6)


def test_cs_kd():
    method = CSKD(Given())
    pair = batch(S, T)
    pair.images.requires_grad_()
    output = method.training_loss(pair, at())
    assert total(output) == pytest.approx(0.911717, abs=2e-6)
    sum(output.terms.values()).backward()
    assert not pair.images.grad[3:].any() and pair.images.grad[:3].any()  # partners carry none


def test_ddgsd():
    method = DDGSD(Given(), feature_weight=0.0)
    output = method.training_loss(batch(S, T), at())
    terms = output.terms
    assert output.logits.equal(S)  # of the first view
    assert float(terms["ce"]) == pytest.approx(0.977051, abs=2e-6)
    assert float(terms["views"]) == pytest.approx(1.081896, abs=2e-6)
    assert float(symmetric_kl(S, T, temperature=1.0)) == pytest.approx(0.831326, abs=2e-6)
    assert float(symmetric_kl(S, S, temperature=3.0)) == 0
    terms = DDGSD(Given(), feature_weight=2.0).training_loss(batch(S, T), at()).terms
    assert float(terms["features"]) == pytest.approx(2 * float((S.mean(0) - T.mean(0)).square().sum()), rel=1e-5)
    with pytest.raises(InputError, match="linear layer"):
        DDGSD(nn.Sequential(nn.Conv2d(1, 4, 3)))


class Other(Given):
    """The second network of a pair sees T."""

    def forward(self, images):
        return self.head(T * self.weight)


def test_dml():
    method = DML(Given(), [Other()])
    terms = method.training_loss(batch(S), at()).terms
    assert float(terms["ce_0"] + terms["mutual_0"]) == pytest.approx(0.794107, abs=2e-6)
    terms["mutual_0"].backward()
    assert method.peers[0].weight.grad is None and method.model.weight.grad is not None
    three = DML(Given(), [Other(), Other()]).training_loss(batch(S), at()).terms
    assert float(three["mutual_0"]) == pytest.approx(float(terms["mutual_0"]), rel=1e-6)  # a mean over the others
    assert float(three["mutual_1"]) == pytest.approx(float(terms["mutual_1"]) / 2, rel=1e-5)
    with pytest.raises(InputError, match="empty list"):
        DML(Given(), [])


@pytest.mark.parametrize("target", ["min_logit", "naive"])
def test_kdcl(target):
    """Each network has a view of its own: the first half of the rows is the first network's."""
    method = KDCL(Given(), [Other()], target=target, temperature=2, weight=3)
    assert method.needs.views == 2 and not method.needs.allows_mixing
    terms = method.training_loss(batch(S, torch.full_like(S, torch.nan)), at()).terms
    assert [terms[f"ce_{i}"].item() for i in range(2)] == pytest.approx([cross_entropy(z, Y).item() for z in (S, T)])
    assert float(terms["group"]) == pytest.approx({"min_logit": 3 * 0.480105, "naive": 3 * 0.491433}[target], rel=1e-5)
    with pytest.raises(InputError, match="KDCL.peers is an empty list"):
        KDCL(Given(), [])


def test_ps_kd():
    method = PSKD(Given(), alpha=0.8)
    method.past_probs = T.softmax(1)[[0, 1, 2]].clone()
    output = method.training_loss(batch(S), at(epoch=1, epochs=4))
    assert total(output) == pytest.approx(0.745719, abs=2e-6)  # a_t = 0.8 * 2 / 4
    assert torch.allclose(method.past_probs, S.softmax(1))


def test_ps_kd_takes_the_label_of_a_sample_that_it_has_not_seen():
    method = PSKD(Given(), alpha=0.8)
    method.build_once(data_info(4, 1, 2, num_samples=5))
    output = method.training_loss(batch(S), at(epoch=1, epochs=4))
    assert total(output) == pytest.approx(0.385922, abs=2e-6)  # cross-entropy with the labels alone
    assert torch.allclose(method.past_probs[:3], S.softmax(1)) and not method.past_probs[3:].any()
    again = method.training_loss(batch(S), at(epoch=3, epochs=4))  # a_t = 0.8: now its own answers count
    own = -(S.softmax(1) * S.log_softmax(1)).sum(1).mean()
    assert total(again) == pytest.approx(0.2 * 0.385922 + 0.8 * float(own), abs=2e-6)


def fit(method, epochs: int, **data):
    trainer = bare_trainer(max_epochs=epochs)
    trainer.fit(method, datamodule=Digits(**{"batch_size": 100, **data}))
    return trainer


def test_ps_kd_remembers_who_came_up():
    method = PSKD(LeNet300100(image_size=8), optimizer=sgd)
    trainer = fit(method, 1, train_part=250)  # 50 are dropped
    data = trainer.datamodule
    seen = method.past_probs.any(1)
    assert int(seen.sum()) == 200 and set(seen.nonzero().flatten().tolist()) <= set(data.train.taken.tolist())
    assert method.past_probs.shape == (len(data.clean_labels), 10)
    assert torch.allclose(method.past_probs[seen].sum(1), torch.ones(200), atol=1e-5)


def test_partners_are_of_the_same_class_and_vary():
    data = Digits(batch_size=100)
    data.setup("fit")
    loader, labels = train_loader(data, needs=CSKD.needs), data.train.labels
    seen = []
    for epoch in range(2):
        plan = loader.plan(epoch, 3)
        first, partner = plan.index.split(100)
        assert torch.equal(labels[first], labels[partner])
        assert (first != partner).float().mean() > 0.9
        assert set(partner.tolist()) <= set(data.train.taken.tolist())
        assert set(plan.view.tolist()) == {2 * epoch, 2 * epoch + 1}
        seen.append(dict(zip(first.tolist(), partner.tolist(), strict=True)))
    both = seen[0].keys() & seen[1].keys()
    assert not both or any(seen[0][k] != seen[1][k] for k in both)
    # any number of processes sees the same
    shares = [train_loader(data, rank, 2, needs=CSKD.needs).plan(1, 3).index.split(50) for rank in range(2)]
    together = dict(
        zip(torch.cat([s[0] for s in shares]).tolist(), torch.cat([s[1] for s in shares]).tolist(), strict=True)
    )
    assert together == seen[1]


def test_snapshot_is_taught_by_the_end_of_the_last_cycle():
    states = []

    class Keep(Snapshot):
        def training_loss(self, batch, position):
            states.append({k: v.clone() for k, v in self.model.state_dict().items()})
            return super().training_loss(batch, position)

    method = Keep(ConvNet(width=4), cycles=2, optimizer=sgd)
    trainer = fit(method, 4, train_part=400)
    assert trainer.global_step == 16
    assert all(torch.equal(method.snapshot[k], states[8][k]) for k in method.snapshot)
    (teacher,) = method.frozen.networks(method.model, [method.snapshot])
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert not any("teacher" in key or "snapshot" in key for key in method.state_dict())


def test_snapshot_is_its_equation():
    method = Snapshot(Given(), cycles=2, temperature=2.0)
    method.cycle, method.snapshot = 1, {k: v.clone() for k, v in method.model.state_dict().items()}
    terms = method.training_loss(batch(S), at(progress=0.5)).terms
    probs, log_probs = (S / 2).softmax(1), S.log_softmax(1)
    kl = float((probs * (probs.log() - log_probs)).sum(1).mean())
    assert float(terms["snapshot"]) == pytest.approx(kl, abs=1e-6)
    assert float(terms["ce"]) == pytest.approx(1.5 * 0.385922, abs=2e-6)


class TwoExits(nn.Module):
    """Gives T at its end; what comes out on the way are the pictures."""

    exits = ("first", "last")

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Identity(), nn.Identity()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images):
        self.last(self.first(images * self.weight))
        return T * self.weight


class Says(nn.Module):
    """A head that gives S, and for features the mean of what it gets and something beside."""

    def forward(self, at_exit):
        return S * at_exit.mean(), at_exit.mean((2, 3)) + 2.0


def test_byot():
    method = BYOT(TwoExits(), temperature=3, alpha=0.3, feature_weight=0.5)
    method.heads.append(Says())
    terms = method.training_loss(batch(torch.ones(3, 4)), at()).terms
    assert float(terms["ce_1"] + terms["soft_1"]) == pytest.approx(0.425277, abs=2e-6)
    assert float(terms["ce"]) == pytest.approx(float(nn.functional.cross_entropy(T, Y)), rel=1e-6)
    assert float(terms["features_1"]) == pytest.approx(0.5 * 4.0, rel=1e-6)  # one feature, off by 2
    method.heads[0].forward = lambda at_exit: (S, at_exit.detach().mean((2, 3)) + 2.0)
    terms = method.training_loss(batch(torch.ones(3, 4)), at()).terms
    assert not terms["soft_1"].requires_grad and not terms["features_1"].requires_grad  # nothing teaches the deepest


def test_byot_heads_fit_every_exit_of_a_network():
    for network, size, exits in (
        (ResNet8(), 32, 3),
        (ResNet18(in_channels=1), 16, 4),
        (VGG16(), 64, 5),
        (ConvNet(), 8, 3),
        (WideResNet(depth=10, widen=1), 16, 3),
        (SmallDenseNet(depth=10), 16, 3),
    ):
        channels = next(network.parameters()).shape[1]
        method = BYOT(network)
        method.build_once(data_info(10, channels, size))
        assert len(method.heads) == exits - 1
        images = torch.randn(2, channels, size, size)
        output = method.training_loss(batch_of(images, torch.tensor([0, 1])), at())
        assert len(output.terms) == 1 + 3 * (exits - 1) and math.isfinite(total(output))
        for number in range(1, exits):
            part = EarlyExit(network, number, 10, channels, size)
            assert part(images).shape == (2, 10)
    with pytest.raises(InputError, match="names no exits"):
        BYOT(LeNet300100())
    with pytest.raises(InputError, match="exits 1 to 2"):
        EarlyExit(ResNet8(), 3)


def test_an_exit_is_a_smaller_network(capsys):
    run = fit_command("digits/byot.yaml", "--trainer.max_epochs", 3)
    checkpoint = run / "checkpoints" / "last.ckpt"
    method = BYOT(ConvNet())
    method.build_once(data_info())
    method.load_state_dict(load(run)["state_dict"])
    images, parameters = torch.randn(5, 1, 8, 8), []
    for number in (1, 2):
        part = EarlyExit(ConvNet(), number, 10, 1, 8)
        load_weights(part, network_weights(read(checkpoint), part), "")
        at_exit = trunk(method.model, method.model.exits[number - 1]).eval()(images)
        assert part.eval()(images).equal(method.heads[number - 1].eval()(at_exit)[0])
        parameters.append(sum(p.numel() for p in part.parameters()))
    assert parameters[0] < parameters[1] < sum(p.numel() for p in ConvNet().parameters())
    asked = ["--model.network", "EarlyExit", "--model.network.network", "ConvNet", "--model.network.exit"]
    capsys.readouterr()
    config = CONFIGS / "digits" / "baseline.yaml"
    assert distill("test", "--config", config, *asked, 2, "--ckpt_path", checkpoint) == 0
    assert "accuracy" in capsys.readouterr().out
    # and it can teach
    taught = ["--trainer.callbacks.teacher", "PlainNetwork", "--trainer.callbacks.teacher.network", "EarlyExit"]
    taught += ["--trainer.callbacks.teacher.network.network", "ConvNet", "--trainer.callbacks.teacher.network.exit", 1]
    taught += [
        "--trainer.callbacks.teacher.network.in_channels",
        1,
        "--trainer.callbacks.teacher.network.image_size",
        8,
    ]
    taught += ["--trainer.callbacks.teacher.weights", checkpoint]
    assert distill("fit", "--config", CONFIGS / "digits" / "kd.yaml", *taught, "--trainer.max_epochs", 1) == 0


def test_knowledge_adjustment_swaps_what_is_wrong():
    assert adjusted(T, Y).tolist() == [[3, 0, 1, -1], [1, 2, 0, -1], [0, 1, 2.5, 2]]


def test_mr_kd_is_its_equation():
    method = MrKD(Given(), copies=2, every_n_steps=3, temperature=4, weight=2.0)
    method.build_once(data_info(4, 1, 2))
    terms = method.training_loss(batch(S), at(step=7)).terms
    assert set(terms) == {"ce", "fusion"} and float(terms["fusion"]) == 0
    assert float(terms["ce"]) == pytest.approx(0.385922, abs=2e-6)
    method.copies = {step: {k: v.clone() for k, v in method.model.state_dict().items()} for step in ("3", "6")}
    with torch.no_grad():
        for teacher in method.frozen.networks(method.model, [*method.copies.values()]):
            assert not teacher.training
            teacher.head.weight.mul_(-1)  # they answer -S
    terms = method.training_loss(batch(S), at(step=7)).terms
    fused = method.fusion(torch.cat([-S, -S], 1))
    expected = sum(
        float(kd(S, adjusted(t.detach(), Y), temperature=4.0)) for t in (-S, -S, fused)
    )  # two copies and what is made of them
    assert float(terms["memory"]) == pytest.approx(2 * expected / 3, rel=1e-5)
    assert float(terms["fusion"]) == pytest.approx(float(nn.functional.cross_entropy(fused, Y)), rel=1e-5)
    terms["memory"].backward()
    assert all(p.grad is None for p in method.fusion.parameters())


def test_mr_kd_keeps_the_newest_copies():
    states = []

    class Keep(MrKD):
        def training_loss(self, batch, position):
            states.append({k: v.clone() for k, v in self.model.state_dict().items()})
            return super().training_loss(batch, position)

    method = Keep(LeNet300100(image_size=8), copies=2, every_n_steps=3, optimizer=sgd)
    fit(method, 2, train_part=500)  # 10 steps
    assert list(method.copies) == ["6", "9"]
    assert all(torch.equal(method.copies[k][name], states[int(k)][name]) for k in method.copies for name in states[0])
    assert not any("teacher" in key or "copies" in key for key in method.state_dict())


def test_cosine_cycles():
    schedule = CosineCycles(2)
    factors = [schedule.factor(epoch, 4, 0.5) for epoch in (0, 1, 1.5, 2, 3)]
    assert factors == pytest.approx([1, 0.5, (1 - math.sqrt(0.5)) / 2, 1, 0.5])


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (TfKDSelf, {"alpha": 1.5}), (TfKDReg, {"right": 1.0}), (CSKD, {"temperature": 0}), (PSKD, {"alpha": -0.1}),
        (DDGSD, {"weight": -1}), (Snapshot, {"cycles": 1}), (BYOT, {"alpha": 2}), (MrKD, {"copies": 0}),
        (MrKD, {"temperature": 0}),
    ],
)  # fmt: skip
def test_bad_options(cls, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        cls(ConvNet(), **wrong)


@pytest.mark.parametrize(("cls", "prefix"), [(BYOT, "heads."), (MrKD, "fusion.")])
def test_what_is_built_beside_the_network_loads_from_python(cls, prefix):
    run = fit_command(f"digits/{cls.__name__.lower().replace('mrkd', 'mr_kd')}.yaml", "--trainer.max_epochs", 1)
    path = run / "checkpoints" / "last.ckpt"
    method = cls.load_from_checkpoint(path, network=ConvNet())
    saved = load(run)["state_dict"]
    assert any(name.startswith(prefix) for name in saved)
    assert all(value.equal(saved[name]) for name, value in method.state_dict().items())
    data = Digits()
    bare_trainer().test(cls(ConvNet()), datamodule=data, ckpt_path=path, verbose=False)


def test_snapshot_copies_the_buffers_of_the_first_process(monkeypatch):
    """Between accumulated batches, each process has its own."""
    method = Snapshot(ConvNet(), cycles=4)
    monkeypatch.setattr(method, "share_buffers", lambda: [buffer.fill_(7) for buffer in method.model.buffers()])
    method.training_loss(batch_of(torch.randn(4, 1, 8, 8), torch.arange(4)), at(progress=0.3))
    assert all(method.snapshot[name].eq(7).all() for name, _ in method.model.named_buffers())


def test_a_row_that_comes_twice_is_the_last_one():
    """In any order, as in balanced batches; what the device would do with two writes to one place is not defined."""
    generator = torch.Generator().manual_seed(0)
    index, rows = torch.randint(20, (500,), generator=generator), torch.randn(500, 3, generator=generator)
    table, expected = torch.zeros(30, 3), torch.zeros(30, 3)
    put_rows(table, index, rows)
    for place, row in zip(index, rows, strict=True):
        expected[place] = row
    assert table.equal(expected) and not table[20:].any()
    put_rows(table, index[:0], rows[:0])
    assert table.equal(expected)


def test_snapshot_teaches_with_what_it_remembers():
    """Rounds of pruning put an earlier snapshot back: its teacher goes with it."""

    method = Snapshot(Given(), cycles=4)
    method.training_loss(batch(S), at(progress=0.3))
    (first,), kept = method.frozen.networks(method.model, [method.snapshot]), method.snapshot
    method.model.head.weight.data.mul_(2)
    method.training_loss(batch(S), at(progress=0.6))
    assert method.frozen.networks(method.model, [method.snapshot])[0] is not first
    method.cycle, method.snapshot = 1, kept
    assert method.frozen.networks(method.model, [method.snapshot])[0].head.weight.equal(torch.eye(4))
