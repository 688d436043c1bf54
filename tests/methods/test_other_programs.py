"""Methods in another program: Lightning's own trainer, plain data loaders, its callbacks and loggers."""

import math

import lightning.pytorch as pl
import pytest
import torch
from helpers import BRANCHED, FEATURE_TAUGHT, METHODS, TAUGHT, make, sgd
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate
from torchmetrics.classification import MulticlassF1Score

import distill_lightning as dl
from distill_lightning.models import LeNet300100

GRID = torch.Generator().manual_seed(0)
IMAGES = torch.randn(64, 1, 8, 8, generator=GRID)
LABELS = IMAGES.flatten(1)[:, :10].argmax(1)
NEEDS_MORE = {
    "dlb": "the last batch again",
    "cs_kd": "a second picture of each class",
    "ddgsd": "2 views of each picture",
    "kdcl": "2 views of each picture",
    "pcl": "3 views of each picture",
    "byot": "a description of the data",
    "mr_kd": "a description of the data",
    "ps_kd": "a description of the data",
    **dict.fromkeys(BRANCHED, "a description of the data"),
    **dict.fromkeys(FEATURE_TAUGHT, "needs a data module of distill_lightning"),
}


def loader(**options):
    return DataLoader(TensorDataset(IMAGES, LABELS), batch_size=16, **options)


def trainer(tmp_path, **options):
    return pl.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "default_root_dir": tmp_path}
        | {"log_every_n_steps": 1, "logger": CSVLogger(tmp_path), "enable_model_summary": False}
        | options
    )


def net(seed=0):
    torch.manual_seed(seed)
    return LeNet300100(image_size=8)


@pytest.mark.parametrize("name", METHODS)
def test_a_plain_trainer_trains_every_method_whose_needs_plain_batches_meet(name, tmp_path):
    method = (
        make(name, net(), **({"teacher": [net(1), net(2)] if name == "ca_mkd" else net(1)} if name in TAUGHT else {}))
        if name not in ("byot", "mr_kd", *BRANCHED)
        else make(name)
    )
    if name in NEEDS_MORE:
        with pytest.raises(dl.InputError, match=NEEDS_MORE[name]):
            trainer(tmp_path).fit(method, loader(), loader())
        return
    keep = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    run = trainer(
        tmp_path, max_epochs=8, callbacks=[keep, LearningRateMonitor(), EarlyStopping("val/nll", patience=20)]
    )
    first = {name: value.clone() for name, value in method.model.state_dict().items()}
    run.fit(method, loader(), loader())
    before = float(run.callback_metrics["val/nll"])
    if name not in TAUGHT:  # their teacher knows nothing
        assert before < 2.2  # 2.3 by chance
    assert not all(torch.equal(first[name], value) for name, value in method.model.state_dict().items())
    assert run.test(method, loader(), verbose=False)[0]["test/nll"] == pytest.approx(before)
    content = torch.load(keep.best_model_path, weights_only=True)
    assert not [key for key in content["state_dict"] if "teacher" in key]
    best = run.test(method, loader(), ckpt_path=keep.best_model_path, verbose=False)[0]["test/accuracy"]
    assert best == pytest.approx(float(keep.best_model_score))
    resumed = trainer(tmp_path, max_epochs=9)
    resumed.fit(method, loader(), loader(), ckpt_path=keep.best_model_path)
    assert resumed.current_epoch == 9
    probs = torch.cat([part["probs"] for part in run.predict(method, loader())])
    assert torch.allclose(probs.sum(1), torch.ones(64))


def test_it_is_the_loop_that_one_would_write(tmp_path):
    """Two epochs of KD against a bare loop: the same weights, bit by bit."""
    method = dl.KD(net(), teacher=net(1), temperature=4.0, optimizer=sgd, schedule=dl.Constant())
    trainer(tmp_path).fit(method, loader())
    student, teacher = net(), net(1).eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    for _ in range(2):
        for images, labels in loader():
            logits = student(images)
            with torch.no_grad():
                targets = teacher(images)
            loss = 0.1 * dl.losses.cross_entropy(logits, labels) + 0.9 * dl.losses.kd(logits, targets, temperature=4.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for (name, mine), theirs in zip(method.model.state_dict().items(), student.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


class Rows(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, row):
        return {"pixel_values": IMAGES[row], "labels": LABELS[row]}


class Endless(IterableDataset):
    def __iter__(self):
        return iter(zip(IMAGES, LABELS, strict=True))


def mixed(rows):
    images, labels = default_collate(rows)
    return images, nn.functional.one_hot(labels, 10).float()


@pytest.mark.parametrize(
    "given",
    [
        DataLoader(Rows(), batch_size=16),
        DataLoader(Endless(), batch_size=16),
        DataLoader(TensorDataset(IMAGES, LABELS), batch_size=16, collate_fn=mixed),
    ],
    ids=["dicts", "without a length", "distributions"],
)
def test_batches_of_other_forms_give_the_same_weights(given, tmp_path):
    plain, other = (dl.Baseline(net(), optimizer=sgd, schedule=dl.Constant()) for _ in range(2))
    trainer(tmp_path).fit(plain, loader())
    trainer(tmp_path).fit(other, given)
    for mine, theirs in zip(plain.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_a_schedule_needs_the_length_of_an_epoch(tmp_path):
    endless = DataLoader(Endless(), batch_size=16)
    for limits in ({"max_epochs": 2}, {"max_steps": 8, "max_epochs": -1}):
        with pytest.raises(dl.InputError, match="no length, so Cosine does not know where an epoch ends"):
            trainer(tmp_path, **limits).fit(dl.Baseline(net(), optimizer=sgd, schedule=dl.Cosine()), endless)
    told, plain = (dl.Baseline(net(), optimizer=sgd, schedule=dl.Cosine()) for _ in range(2))
    trainer(tmp_path, limit_train_batches=4).fit(told, endless)
    trainer(tmp_path).fit(plain, loader())
    for mine, theirs in zip(told.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_steps_of_fewer_batches_count_as_steps(tmp_path):
    """4 batches in groups of 3 are 2 steps, so 6 steps are 3 epochs, and the rate falls until the last of them."""
    rates = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            rates.append(optimizer.param_groups[0]["lr"] / optimizer.param_groups[0]["initial_lr"])

    given = {"max_steps": 6, "max_epochs": -1, "accumulate_grad_batches": 3, "callbacks": [Watch()]}
    trainer(tmp_path, **given).fit(dl.Baseline(net(), optimizer=sgd, schedule=dl.Cosine()), loader())
    whole = 12  # batches; a rate is set before the batch that completes a step
    expected = [(1 + math.cos(math.pi * done / whole)) / 2 for done in (2, 3, 6, 7, 10, 11)]
    assert rates == pytest.approx(expected)


def test_a_data_module_with_hooks_of_its_own_keeps_them(tmp_path):
    class Theirs(pl.LightningDataModule):
        def train_dataloader(self):
            return loader()

        def on_after_batch_transfer(self, batch, dataloader_idx):
            seen.append(len(batch))
            return batch[0] * 0, batch[1]

    seen = []
    method = dl.Baseline(net(), optimizer=sgd)
    first = next(method.model.parameters()).clone()
    trainer(tmp_path).fit(method, datamodule=Theirs())
    assert len(seen) == 8
    assert torch.equal(next(method.model.parameters()), first)  # black pictures teach the first layer nothing


def test_metrics_and_callbacks_of_others_get_the_logits(tmp_path):
    class F1(pl.Callback):
        def __init__(self):
            self.metric = MulticlassF1Score(10)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.metric.update(outputs["logits"], batch[1])

    f1 = F1()
    trainer(tmp_path, callbacks=[f1]).fit(dl.Baseline(net()), loader())
    assert 0 <= float(f1.metric.compute()) <= 1


def test_the_random_numbers_of_the_other_program_are_left_alone(tmp_path):
    class Watch(pl.Callback):
        def on_train_batch_start(self, *_):
            self.state = torch.get_rng_state()

        def on_train_batch_end(self, *_):
            assert torch.equal(self.state, torch.get_rng_state())

    watch = Watch()
    trainer(tmp_path, callbacks=[watch]).fit(dl.Baseline(net()), loader())
    assert len(watch.state)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: t.fit(dl.KD(net()), loader()), "KD needs a teacher"),
        (lambda t: t.fit(dl.Baseline(LeNet300100), loader()), "no network yet"),
        (lambda t: t.fit(dl.Baseline(net()), DataLoader(LABELS, batch_size=4)), r"expected \(images, labels\)"),
        (lambda t: t.fit(dl.KD(net(), teacher="nowhere.ckpt"), loader()), "there is no teacher nowhere.ckpt"),
        (lambda t: t.fit(dl.Baseline(net(), class_bias={"3": 1.0}), loader()), "class_bias"),
        (
            lambda t: t.fit(dl.KD(net(), teacher=dl.PlainNetwork(net(), mean=[0.5], std=[0.5])), loader()),
            "leave mean and std out",
        ),
    ],
)
def test_what_plain_batches_cannot_give_is_one_line(call, words, tmp_path):
    with pytest.raises(dl.InputError, match=words) as raised:
        call(trainer(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["dkd", "nkd", "wsld", "tf_kd_reg"])
def test_distributions_are_refused_where_a_loss_needs_one_class(name, tmp_path):
    method = make(name, net(), **({"teacher": net(1)} if name in TAUGHT else {}))
    with pytest.raises(dl.InputError, match="needs a label of one class for each picture"):
        trainer(tmp_path).fit(method, loader(collate_fn=mixed))


def test_pictures_alone_are_enough_where_labels_have_no_weight(tmp_path):
    pictures = DataLoader(TensorDataset(IMAGES), batch_size=16)
    method = dl.KD(net(), teacher=net(1), hard_weight=0.0, soft_weight=1.0, optimizer=sgd)
    labelled = dl.KD(net(), teacher=net(1), hard_weight=0.0, soft_weight=1.0, optimizer=sgd)
    trainer(tmp_path).fit(method, pictures)
    trainer(tmp_path).fit(labelled, loader())
    for mine, theirs in zip(method.model.parameters(), labelled.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(dl.InputError, match="Baseline needs labels, and a batch has pictures alone"):
        trainer(tmp_path).fit(dl.Baseline(net()), pictures)
