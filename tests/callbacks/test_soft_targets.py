"""Teachers: their input, their output, and which teachers are refused."""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from helpers import CONFIGS, bare_trainer, distill, fit, load

import distill_lightning as dl
from distill_lightning.callbacks.soft_targets import SoftTargets, _in_words
from distill_lightning.checkpoints import PlainNetwork, open_network
from distill_lightning.data.augment import RandomCrop
from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.files import locked
from distill_lightning.losses import kd
from distill_lightning.methods.at import AT
from distill_lightning.methods.base import Method
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.cat_kd import CATKD
from distill_lightning.methods.crd import CRD
from distill_lightning.methods.dlb import DLB
from distill_lightning.methods.fitnets import FitNets
from distill_lightning.methods.kd import KD
from distill_lightning.methods.nst import NST
from distill_lightning.methods.ofd import OFD
from distill_lightning.methods.pkt import PKT
from distill_lightning.methods.reviewkd import ReviewKD
from distill_lightning.methods.rkd import RKD
from distill_lightning.methods.seed import SEED
from distill_lightning.methods.simkd import SimKD
from distill_lightning.methods.sp import SP
from distill_lightning.methods.srrl import SRRL
from distill_lightning.methods.vid import VID
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.values import Batch, BatchNeeds, StepOutput


def teacher(seed: int) -> ConvNet:
    torch.manual_seed(seed)
    return ConvNet(dropout=0.5)


def run(
    given, epochs: int = 2, method: Callable[..., Method] = KD, augment: tuple = (RandomCrop(1),), **options
) -> list[Batch]:
    """The batches, as the method had them."""
    trainer = bare_trainer(max_epochs=epochs, callbacks=[SoftTargets(given, folder="tables", **options)])
    data = Digits(batch_size=100, train_part=350, augment=[*augment])
    torch.manual_seed(0)
    method = method(LeNet300100(image_size=8), optimizer=lambda p: torch.optim.SGD(p, lr=0.01))
    batches, original = [], method.training_loss
    method.training_loss = lambda batch, position: (batches.append(batch), original(batch, position))[1]
    trainer.fit(method, datamodule=data)
    assert not any("teacher" in key for key in method.state_dict())
    return batches


def test_online_asks_the_teacher_for_the_very_pictures():
    network = teacher(1).eval()
    for batch in run(PlainNetwork(teacher(1))):
        with torch.no_grad():
            assert torch.allclose(batch.teacher.logits, network(batch.images), atol=1e-5)


@pytest.mark.parametrize("views", [1, 2, 3])
def test_a_table_gives_the_logits_of_the_picture_that_the_student_sees(views):
    network = teacher(1).eval()
    batches = run(PlainNetwork(teacher(1)), epochs=4, mode="table", views=views)
    assert {int(batch.view[0]) for batch in batches} == set(range(views))
    for batch in batches:
        with torch.no_grad():
            assert torch.allclose(batch.teacher.logits, network(batch.images), atol=1e-5)


READ = {
    "rkd": (RKD, {}, [(64,)]),
    "rkd and logits": (RKD, {"soft_weight": 1.0}, [(64,)]),
    "crd": (CRD, {"negatives": 8}, [(64,)]),
    "seed": (SEED, {"local_weight": 0}, [(64,)]),
    "at": (AT, {}, [(8, 8), (4, 4), (2, 2)]),
    "srrl": (SRRL, {}, [(64,)]),
    "cat_kd": (CATKD, {}, [(10, 2, 2)]),
}


@pytest.mark.parametrize("name", READ)
def test_a_table_gives_what_the_live_teacher_gives(name):
    """Both train on the same pictures: as many epochs as the table has views."""
    kind, options, shapes = READ[name]

    def batches(mode: str) -> list[Batch]:
        method = partial(kind, ConvNet(width=4), **options)
        return run(PlainNetwork(teacher(1)), 2, lambda _, **rest: method(**rest), mode=mode, views=2)

    live, stored = batches("online"), batches("table")
    assert len(live) == len(stored) == 6
    for one, other in zip(live, stored, strict=True):
        assert torch.equal(one.images, other.images)
        assert [tuple(f.shape[1:]) for f in other.teacher.features] == shapes
        for f, g in zip(one.teacher.features, other.teacher.features, strict=True):
            assert torch.allclose(f, g, rtol=1e-4, atol=1e-5)
        if options.get("soft_weight") or name in ("srrl", "cat_kd"):
            assert torch.allclose(one.teacher.logits, other.teacher.logits, atol=1e-5)
        else:
            assert other.teacher.logits.shape == (len(other.labels), 0)


def test_methods_that_read_the_same_share_a_table(capsys):
    """The teacher has other classes: its logits are not read."""
    network = ConvNet(7)
    for kind in (RKD, PKT):
        method = partial(kind, ConvNet(width=4))
        run(PlainNetwork(network), 1, lambda _, method=method, **rest: method(**rest), mode="table")
    assert len([*Path("tables").iterdir()]) == 1
    assert capsys.readouterr().err.count("soft targets: 1 views of 350 samples, 64 numbers each, 0.1 MB; 2 blocks") == 1


@pytest.mark.parametrize("kind", [FitNets, SP, NST, VID, OFD, ReviewKD, SimKD, SEED])
def test_a_table_holds_no_maps(kind):
    with pytest.raises(InputError, match=f"a table .*{kind.__name__} reads.*: give the mode online"):
        run(PlainNetwork(teacher(1)), 1, lambda network, **rest: kind(ConvNet(width=4), **rest), mode="table")


def test_a_table_is_made_once():
    calls = []
    network = teacher(1)
    network.register_forward_hook(lambda *_: calls.append(1))
    run(PlainNetwork(network), mode="table", views=2)
    made = len(calls)
    run(PlainNetwork(network), mode="table", views=2)
    assert made > 2
    assert len(calls) == made + 1  # the one blank picture that checks the classes


def test_an_ensemble_gives_the_mean_of_its_members_logits():
    (first, second, both) = (run(given) for given in (
        PlainNetwork(teacher(1)), PlainNetwork(teacher(2)), [PlainNetwork(teacher(1)), PlainNetwork(teacher(2))]
    ))  # fmt: skip
    for a, b, c in zip(first, second, both, strict=True):
        assert torch.allclose((a.teacher.logits + b.teacher.logits) / 2, c.teacher.logits, atol=1e-6)


def test_a_teacher_gets_its_own_normalisation():
    data = Digits()
    data.setup("fit")
    own = PlainNetwork(teacher(1), mean=[0.1], std=[0.5])
    network = teacher(1).eval()
    for batch in run(own, epochs=1):
        pixels = batch.images * data.normaliser.std + data.normaliser.mean
        with torch.no_grad():
            assert torch.allclose(batch.teacher.logits, network((pixels - 0.1) / 0.5), atol=1e-4)


def test_a_teacher_takes_the_runs_precision(pictures):
    first = fit("digits/baseline.yaml", "--trainer.max_epochs", 1)
    teach = ["--trainer.callbacks.teacher", first / "checkpoints" / "last.ckpt", "--trainer.max_epochs", 1]
    for precision in ("bf16-true", "bf16-mixed"):
        fit("digits/born_again.yaml", *teach, "--trainer.precision", precision)


def test_teachers_of_other_classes_or_channels_are_refused():
    with pytest.raises(InputError, match="7 classes"):
        run(PlainNetwork(ConvNet(num_classes=7)))
    with pytest.raises(InputError, match="cannot take pictures"):
        run(PlainNetwork(ConvNet(in_channels=3)))
    with pytest.raises(InputError, match="channels"):
        run(PlainNetwork(ConvNet(), mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0]))
    with pytest.raises(InputError, match="empty list"):
        SoftTargets([])
    with pytest.raises(InputError, match="views"):
        SoftTargets("x", views=0)


def test_a_student_teaches_in_turn_and_its_teacher_may_be_gone(capsys):
    first = fit("digits/baseline.yaml", "--trainer.max_epochs", 1)
    path = first / "checkpoints" / "last.ckpt"
    teach = ["--trainer.max_epochs", 1, "--trainer.callbacks.teacher"]
    second = fit("digits/born_again.yaml", *teach, path)
    path.unlink()
    third = fit("digits/born_again.yaml", *teach, second / "checkpoints" / "last.ckpt", "--seed_everything", 2)
    assert distill("test", "--ckpt_path", third / "checkpoints" / "last.ckpt") == 0
    keys = load(third)["state_dict"].keys()
    assert {key.partition(".")[0] for key in keys} == {"model"}
    assert isinstance(open_network(third / "checkpoints" / "last.ckpt"), ConvNet)


def test_a_teacher_that_has_seen_the_validation_pictures_is_refused(capsys):
    run = fit("digits/baseline.yaml", "--trainer.max_epochs", 1, "--data.split_seed", 5)
    path = run / "checkpoints" / "last.ckpt"
    assert distill("fit", "--config", born_again(), "--trainer.callbacks.teacher", path) == 2
    assert "validation pictures" in capsys.readouterr().err
    same_split = ["--data.split_seed", 5, "--trainer.max_epochs", 1]
    assert distill("fit", "--config", born_again(), "--trainer.callbacks.teacher", path, *same_split) == 0


def born_again() -> Path:
    return CONFIGS / "digits" / "born_again.yaml"


def test_a_moved_teacher_may_go_on_teaching_and_another_may_not(capsys):
    first, other = (fit("digits/baseline.yaml", "--trainer.max_epochs", 1, "--seed_everything", s) for s in (0, 1))
    teacher = (first / "checkpoints" / "last.ckpt").rename("moved.ckpt")
    given = ["fit", "--config", born_again(), "--trainer.max_epochs", 1, "--trainer.callbacks.teacher"]
    assert distill(*given, teacher) == 0
    (run,) = Path("logs/digits/born_again").glob("[!.]*")
    (run / "summary.json").unlink()
    again = teacher.rename("moved_again.ckpt")
    assert distill(*given, again, "--ckpt_path", "last") == 0
    (run / "summary.json").unlink()
    assert distill(*given, other / "checkpoints" / "last.ckpt", "--ckpt_path", "last") == 2
    assert "weights of the teacher" in capsys.readouterr().err


def test_a_table_of_an_earlier_fit_does_not_say_which_views_come():
    data, seen = Digits(batch_size=100, train_part=350, augment=[RandomCrop(1)]), []

    class Views(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(int(batch.view[0]))

    for method, callback in (
        (KD, SoftTargets(PlainNetwork(teacher(1)), "table", folder="tables")),
        (Baseline, Views()),
    ):
        student = method(LeNet300100(image_size=8), optimizer=lambda p: torch.optim.SGD(p, lr=0.01))
        bare_trainer(max_epochs=2, callbacks=[callback]).fit(student, datamodule=data)
    assert seen == [0, 0, 0, 1, 1, 1]


class TaughtDLB(DLB):
    """Both views are taught."""

    needs = BatchNeeds(repeats_last_batch=True, teacher_logits=True)

    def training_loss(self, batch, position):
        soft = kd(self(batch.images), self.teacher_logits(batch), temperature=4.0)
        output = super().training_loss(batch, position)
        return StepOutput(output.terms | {"soft": soft}, output.logits)


def test_views_must_come_round_with_the_epochs_of_a_method_that_shows_several():
    """Else both halves of DLB's batch would be one view, or of two mixtures."""
    given = {"given": PlainNetwork(teacher(1)), "epochs": 1, "method": TaughtDLB, "mode": "table"}
    with pytest.raises(InputError, match="TaughtDLB shows 2 views of a sample in an epoch: give a multiple of 2"):
        run(views=3, **given)
    run(views=2, **given)
    run(views=1, augment=(), **given)  # all views are the same picture


def test_a_method_that_reads_no_teacher_refuses_one():
    with pytest.raises(InputError, match="DLB reads no teacher's logits"):
        run(PlainNetwork(teacher(1)), method=DLB)


def test_a_run_waits_for_another_that_generates_the_table(monkeypatch):
    """All its processes wait together: none of them is left in a collective operation, which has a time limit."""
    before = run(teacher(0), mode="table", epochs=1)
    (lock,) = Path("tables").glob("*/lock")
    (lock.parent / "checks.npy").unlink()  # a complete one is read without its lock
    other, waits = ExitStack(), []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            other.close()

    monkeypatch.setattr("distill_lightning.callbacks.soft_targets.time", SimpleNamespace(sleep=sleep))
    with other:
        other.enter_context(locked(lock))
        after = run(teacher(0), mode="table", epochs=1)
    assert len(waits) == 2
    assert all(a.teacher.logits.equal(b.teacher.logits) for a, b in zip(before, after, strict=True))


def test_the_words_for_a_transform_are_the_same_in_each_process():
    """They are in the name of the table; the address of an object is another in each process."""
    for transform in (dl.ThreeAugment(), dl.RandomCrop(2), dl.RandAugment()):
        words = _in_words(transform)
        assert words == _in_words(copy.deepcopy(transform)) and " at 0x" not in words
