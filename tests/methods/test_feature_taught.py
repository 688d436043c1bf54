"""Methods with a teacher's features: their golden values, the live teacher, and what cannot be compared."""

from functools import partial

import pytest
import torch
from features_of import Says, fit, made, student, teacher
from helpers import at, bare_trainer, batch_of, sgd
from torch import nn

import distill_lightning as dl
from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.digits import Digits
from distill_lightning.data.mixing import Mixup
from distill_lightning.errors import InputError
from distill_lightning.features import Features, last_linear
from distill_lightning.losses import class_maps, cross_entropy, kd
from distill_lightning.methods.at import AT
from distill_lightning.methods.cat_kd import CATKD
from distill_lightning.methods.evaluated import Unregistered
from distill_lightning.methods.fitnets import FitNets
from distill_lightning.methods.kd import KD
from distill_lightning.methods.nst import NST
from distill_lightning.methods.pkt import PKT
from distill_lightning.methods.rkd import RKD
from distill_lightning.methods.sp import SP
from distill_lightning.methods.srrl import SRRL
from distill_lightning.models import ConvNet, LeNet300100
from distill_lightning.optimizers import FineTuning
from distill_lightning.values import TeacherOutput

A, B = made(torch.sin, 0.7, 0.3, 3, 2, 4, 4), made(torch.cos, 0.37, 0, 3, 3, 4, 4)
V, W = made(torch.sin, 1, 1, 3, 4), made(torch.cos, 0.5, 0, 3, 5)
S = torch.tensor([[2, -1, 0.5, 0], [0, 1.5, -0.5, 1], [-1, 0, 3, 0.5]])
T = torch.tensor([[3, 0, 1, -1], [1, 2, 0, -1], [0, 1, 2, 2.5]])


@pytest.mark.parametrize(
    ("method", "features", "of_teacher", "golden"),
    [
        (AT, A, B, 1000 * 0.018061653),
        (NST, A, B, 50 * 1.312254754),
        (SP, A, B, 3000 * 0.607362913),
        (RKD, V, W, 0.375577426),
        (PKT, V, W, 30000 * 0.009005992),
    ],
)
def test_golden_values(method, features, of_teacher, golden):
    network = nn.Sequential(Says(features), Says(S))
    made = method(network, layers=["0"], soft_weight=0.5)
    made.features = Features(network, ["0"])
    batch = batch_of(torch.zeros(3, 1, 8, 8), torch.arange(3), teacher=TeacherOutput(T, (of_teacher,)))
    terms = made.training_loss(batch, at()).terms
    hard, soft = terms.pop("hard").item(), terms.pop("soft").item()
    assert sum(terms.values()).item() == pytest.approx(golden, rel=2e-6)
    assert hard == pytest.approx(cross_entropy(S, torch.arange(3)).item())
    assert soft == pytest.approx(0.5 * kd(S, T, temperature=4).item())


@pytest.mark.parametrize(("options", "golden"), [({}, 0.267095545), ({"normalise": True}, 0.479904190)])
def test_golden_values_of_cat_kd(options, golden):
    network = nn.Sequential(Says(made(torch.sin, 0.7, 0.3, 3, 3, 4, 4)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(3, 3))
    nn.init.eye_(network[-1].weight)
    method = CATKD(network, layers=["0"], class_map_weight=2.0, **options)
    method.features, method._classifier = Features(network, ["0"]), Unregistered(network[-1])
    of_teacher = tuple(method.reading([]).read([B]))
    batch = batch_of(torch.zeros(3, 1, 8, 8), torch.arange(3), teacher=TeacherOutput(S[:, :3], of_teacher))
    terms = method.training_loss(batch, at()).terms
    assert terms["class_maps"].item() == pytest.approx(2 * golden, rel=2e-6)
    terms["class_maps"].backward()
    assert network[0].what.grad.abs().max() > 0 and network[-1].weight.grad.abs().max() > 0
    assert network[-1].bias.grad is None  # the bias is no part of the maps


def test_class_maps_are_the_logits_place_by_place():
    network = teacher().eval()
    features = Features(network, ["last_stage"], in_eval=True)
    logits, classifier = network(torch.rand(5, 1, 8, 8)), last_linear(network)
    maps = class_maps(features.take()[0], classifier.weight)
    torch.testing.assert_close(maps.mean((2, 3)) + classifier.bias, logits)


def test_the_live_teacher_sees_the_very_pictures_once_a_step_and_is_not_part_of_the_method():
    live = teacher()
    calls = []
    live.register_forward_hook(lambda *_: calls.append(1))
    method = student(soft_weight=0.5)
    statistics = {name: value.clone() for name, value in live.state_dict().items()}
    batches = fit(method, PlainNetwork(live, mean=[0.1], std=[0.5]))
    assert len(calls) == len(batches) + 2  # and two blank pictures, for its classes and the shapes of its layers
    assert not [key for key in method.state_dict() if not key.startswith("model.")]
    assert all(value.equal(statistics[name]) for name, value in live.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in live.parameters())  # a copy of it was frozen
    data = Digits()
    data.setup("fit")
    for batch in batches:
        pixels = (batch.images * data.normaliser.std + data.normaliser.mean - 0.1) / 0.5
        with torch.no_grad():
            first = nn.Sequential(*list(live)[:3])(pixels)
            assert torch.allclose(batch.teacher.logits, live(pixels), atol=1e-4)
        assert torch.allclose(batch.teacher.features[0], first.square().mean(1), atol=1e-4)  # what AT reads of it
        assert not batch.teacher.features[0].is_inference() and not batch.teacher.features[0].requires_grad
    assert not live[2]._forward_hooks


def test_a_teacher_may_have_other_classes_unless_its_logits_are_used():
    fit(student(), PlainNetwork(teacher(num_classes=7)))
    with pytest.raises(InputError, match="7 classes"):
        fit(student(soft_weight=1.0), PlainNetwork(teacher(num_classes=7)))


def test_the_gradient_of_the_features_reaches_the_student_below_them_alone():
    method = student(layers=["stage1"], teacher_layers=["stage1"], hard_weight=0.0)
    before = {name: p.detach().clone() for name, p in method.model.named_parameters()}
    fit(method)
    moved = {name.partition(".")[0] for name, p in method.model.named_parameters() if not p.equal(before[name])}
    assert moved == {"0", "1"}


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}])
def test_a_second_fit_and_accumulation(options):
    method = student(RKD)
    for _ in range(2):
        trainer = bare_trainer(max_epochs=1, callbacks=[SoftTargets(PlainNetwork(teacher()))], **options)
        trainer.fit(method, datamodule=Digits(batch_size=100, train_part=300))
    assert sum(len(m._forward_hooks) for m in method.model.modules()) == 1


def table():
    return SoftTargets(PlainNetwork(teacher()), "table")


@pytest.mark.parametrize(
    ("method", "options", "given", "words"),
    [
        (AT, {"layers": ["7x"]}, {}, "ConvNet has no layer 7x"),
        (AT, {"teacher_layers": ["stage1", "stage2", "stage33"]}, {}, "ConvNet has no stage33: it has 3 stages"),
        (AT, {"layers": ["stage1"]}, {}, "the student has 1 layers and the teacher 3: give layers and teacher_layers"),
        (AT, {"layers": ["pooled"], "teacher_layers": ["stage3"]}, {}, r"AT compares maps \(C, H, W\), and at pooled"),
        (
            AT,
            {},
            {"callback": SoftTargets([PlainNetwork(teacher()), PlainNetwork(teacher())])},
            "one teacher.* 2: give",
        ),
        (
            CATKD,
            {"layers": ["stage1"]},
            {},
            "CATKD needs a linear layer after stage1 of ConvNet: give its last map in layers",
        ),
        (CATKD, {"teacher_layers": ["stage2"]}, {}, "stage2 of ConvNet: give its last map in teacher_layers"),
        (CATKD, {"layers": ["stage2", "stage3"]}, {}, "CATKD uses one layer of each network, and layers has 2"),
        (CATKD, {}, {"given": PlainNetwork(ConvNet(7))}, "7 classes"),
        (AT, {}, {"given": PlainNetwork(LeNet300100(image_size=8))}, "LeNet300100 names no stages: give layers"),
        (
            SP,
            {},
            {"callback": table},
            "a table holds logits and vectors, and SP reads whole maps, .*: give the mode online",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_line_before_the_first_batch(method, options, given, words):
    given = {key: value() if value is table else value for key, value in given.items()}
    with pytest.raises(InputError, match=words) as error:
        fit(student(method, **options), **given)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_fine_tuning_may_freeze_what_is_read():
    with pytest.raises(InputError, match="AT reads layers that fine_tuning may freeze: leave fine_tuning out"):
        fit(student(fine_tuning=FineTuning(frozen=["0"])))


def test_no_teacher_at_all():
    with pytest.raises(InputError, match="AT needs a teacher: add the callback SoftTargets"):
        bare_trainer(max_epochs=1).fit(student(), datamodule=Digits(batch_size=100))


def test_mixtures_are_shown_to_both():
    for batch in fit(student(SP), mix=Mixup()):
        assert batch.label_probs is not None and len(batch.teacher.features[0]) == len(batch.images)


def test_kd_asks_for_no_features():
    torch.manual_seed(0)
    assert all(batch.teacher.features == () for batch in fit(KD(ConvNet(), optimizer=sgd)))


@pytest.mark.parametrize("method", [AT, SP, NST])
def test_no_layers_are_no_method(method):
    with pytest.raises(InputError, match=rf"{method.__name__}.layers is an empty list: give one layer or more"):
        fit(student(method, layers=[], teacher_layers=[]))


def test_the_teacher_is_ready_before_a_callback_asks_for_it():
    """Lottery looks at the network of the student, which may need that of the teacher, before the first step."""
    method = AT(ConvNet(width=4), teacher=teacher(), optimizer=sgd)
    trainer = dl.Trainer(max_epochs=1, callbacks=[dl.Lottery(rounds=1)], logger=False, enable_progress_bar=False)
    assert trainer.fit(method, dl.Digits(train_part=200)).metrics["test/accuracy"] > 0


@pytest.mark.parametrize(
    ("method", "options", "kept"),
    [
        (AT, {"layers": ["stage1"], "teacher_layers": ["stage1"]}, 8),
        (FitNets, {"layers": ["stage2"]}, 5),
        (RKD, {}, 2),
        (CATKD, {}, 1),
        (SRRL, {}, 2),
    ],
)
def test_what_no_term_reaches_is_not_decayed(method, options, kept):
    """A loss of zero times the cross-entropy would give it gradients of 0, on which weight decay acts."""
    torch.manual_seed(0)
    decay = partial(torch.optim.SGD, lr=0.01, weight_decay=0.1)
    made = method(ConvNet(), optimizer=decay, decay_norms_and_biases=True, hard_weight=0.0, **options)
    before = {name: value.clone() for name, value in made.model.named_parameters()}
    fit(made)
    changed = [not value.equal(before[name]) for name, value in made.model.named_parameters()]
    assert changed == (11 - kept) * [True] + kept * [False]
    assert all(value.requires_grad for value in made.model.parameters())


def test_accumulated_batches_are_one_batch():
    """Of features whose loss is a mean over the samples, without batch norm."""
    weights = []
    for size, accumulated in ((100, 1), (50, 2)):
        torch.manual_seed(0)
        method = AT(ConvNet(norm=False), optimizer=sgd)
        trainer = bare_trainer(
            max_epochs=2, precision="64-true", accumulate_grad_batches=accumulated, callbacks=[SoftTargets(teacher())]
        )
        trainer.fit(method, datamodule=Digits(batch_size=size, train_part=300))
        weights.append(torch.cat([value.detach().flatten() for value in method.model.parameters()]))
    assert torch.allclose(*weights, atol=1e-12)
