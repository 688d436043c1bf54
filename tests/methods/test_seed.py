"""SEED: its queue, its two terms, what is not trained, teachers of other forms, and fine-tuning from its run."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from features_of import Says, fit, made, student, teacher
from helpers import at, bare_trainer, batch_of, distill, load, sgd, write_pictures
from helpers import fit as run
from torch import nn

from distill_lightning import losses
from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.features import Features
from distill_lightning.methods.feature_taught import through, unreached
from distill_lightning.methods.seed import SEED
from distill_lightning.models import ConvNet
from distill_lightning.token_maps import Form
from distill_lightning.values import TeacherOutput

S, T = made(torch.cos, 0.5, 0, 3, 4), made(torch.sin, 1, 1, 3, 4)
MAP_S, MAP_T = (
    made(function, factor, offset, 2, 3, 4).mT.unsqueeze(3)
    for function, factor, offset in ((torch.cos, 0.37, 0), (torch.sin, 0.7, 0.3))
)
QUEUE = F.normalize(made(torch.cos, 1, 2, 5, 4))


def alone(weight: float = 0.0, **options) -> SEED:
    """The method with linear layers that change nothing, whose student gives S and the map of the golden value."""
    network = nn.Sequential(Says(MAP_S if weight else S), Says(S[: 2 if weight else 3]), Says(torch.zeros(3, 4)))
    layers = ["1", "0"] if weight else ["1"]
    method = SEED(network, layers=layers, local_weight=weight, queue_length=5, **options)
    method.adapters = nn.ModuleList([nn.Linear(4, 4) for _ in layers])
    for layer in method.adapters:
        nn.init.eye_(layer.weight), nn.init.zeros_(layer.bias)
    method.features, method._length = Features(network, layers), 5
    return method


def terms_of(method, *of_teacher, index=(0, 1, 2)) -> dict[str, float]:
    index = torch.tensor(index)
    batch = batch_of(torch.zeros(3, 1, 8, 8), torch.arange(3), index=index, teacher=TeacherOutput(S, of_teacher))
    return {name: term.item() for name, term in method.training_loss(batch, at()).terms.items()}


# The terms and the queue


def test_golden_values(monkeypatch):
    """Of the global term with the queue of the facts, and of the local term."""
    method = alone()
    monkeypatch.setattr(method, "_with_batch", lambda rows, batch: QUEUE)
    assert terms_of(method, T) == {"global": pytest.approx(12.833115576, rel=2e-6)}
    method = alone(2.0)
    assert terms_of(method, T[:2], MAP_T, index=(0, 1))["local"] == pytest.approx(2 * 0.573467191, rel=2e-6)
    warm = alone(student_temperature=0.2, teacher_temperature=0.01)
    monkeypatch.setattr(warm, "_with_batch", lambda rows, batch: QUEUE)
    expected = losses.seed(S, T, QUEUE, temperature=0.2, teacher_temperature=0.01).item()
    assert terms_of(warm, T)["global"] == pytest.approx(expected)


def test_the_queue_gets_the_batch_before_the_loss_and_only_filled_rows_count():
    """Rows of zeros, as in a queue that is made at once, would be classes of similarity 0."""
    method = alone(student_temperature=1, teacher_temperature=1)
    first = terms_of(method, T, index=(7, 3, 5))["global"]
    warm = {"temperature": 1, "teacher_temperature": 1}
    rows = F.normalize(T)[[1, 2, 0]]  # by position, so that the number of processes changes nothing
    assert torch.allclose(method.queue, rows)
    assert first == pytest.approx(losses.seed(S, T, rows, **warm).item())
    zeros = torch.cat([rows, torch.zeros(2, 4)])
    assert abs(first - losses.seed(S, T, zeros, **warm).item()) > 0.1
    second = terms_of(method, -T)["global"]
    rows = torch.cat([rows[1:], F.normalize(-T)])  # the oldest row has left
    assert torch.allclose(method.queue, rows)
    assert second == pytest.approx(losses.seed(S, -T, rows, **warm).item())


def test_the_queue_is_forgotten_by_a_second_fit():
    method = student(SEED, queue_length=150)
    batches = fit(method)
    assert method.queue.shape == (150, 32) and method.queue.norm(dim=1).max() < 1.001
    last = batches[-1]
    assert torch.allclose(method.queue[-100:], F.normalize(last.teacher.features[0])[last.index.argsort()], atol=1e-6)
    queue = method.queue
    again = student(SEED, queue_length=150)
    fit(again)
    assert again.queue.equal(queue)
    fit(again)
    assert again.queue.equal(queue)  # the same pictures, and no rows of the first fit
    assert not [name for name in again.state_dict() if "queue" in name]


@pytest.mark.parametrize(("pictures", "length"), [(100, 100), (300, 256), (1200, 1024)])
def test_the_length_of_the_queue_follows_the_data_and_holds_a_batch(pictures, length):
    method = student(SEED, local_weight=0.0)
    fit(method, train_part=pictures)
    assert method._length == length


def test_linear_layers_are_small_and_in_float32_under_autocast():
    method = student(SEED)
    method.adapt([(32,), (32, 2, 2)], [(160,), (160, 2, 2)])
    for layer in method.adapters:
        assert 0.018 < layer.weight.std() < 0.021 and layer.weight.abs().max() > 0.06 and not layer.bias.any()
    with torch.autocast("cpu", torch.bfloat16):
        assert through(method.adapters[0], torch.ones(2, 32, dtype=torch.bfloat16)).dtype == torch.float32


def test_the_map_of_the_student_gets_the_size_of_the_teachers():
    method = student(SEED, layers=["pooled", "stage1"], teacher_layers=["pooled", "stage2"])
    batches = fit(method)
    assert batches[0].teacher.features[1].shape[2:] == (4, 4)  # and the student's is 8x8


# What is trained


def test_labels_have_no_part_in_it():
    weights = []
    for noise in (None, 0.9):
        method = student(SEED)
        batches = fit(method, label_noise=noise)
        weights.append(method.model.state_dict())
    assert (batches[0].labels != batches[0].clean_labels).any()
    assert all(a.equal(b) for a, b in zip(*map(dict.values, weights), strict=True))


def test_pictures_without_labels_are_taken():
    method = student(SEED)
    batches = fit(method, train_part="10 per class", unlabelled="rest", unlabelled_share=0.5)
    assert batches[0].num_unlabelled == 50 and len(method.queue) == 200
    with_labels = student(SEED, hard_weight=1.0)
    fit(with_labels, train_part="10 per class", unlabelled="rest", unlabelled_share=0.5)
    assert not with_labels.model[-1].weight.equal(method.model[-1].weight)


def test_what_no_term_reaches_is_not_trained_in_the_fit_alone():
    first = ConvNet()
    method = SEED(copy.deepcopy(first), optimizer=lambda groups: torch.optim.SGD(groups, 0.1, weight_decay=0.1))
    inside = []
    method.on_train_start = lambda: inside.extend(p for p in method.model.parameters() if not p.requires_grad)
    fit(method)
    same = [name for name, p in method.model.named_parameters() if p.equal(dict(first.named_parameters())[name])]
    assert same == ["12.weight", "12.bias"] and len(inside) == 2
    assert all(p.requires_grad for p in method.model.parameters())
    assert len(unreached(first, ["stage1"], (1, 8, 8))) == 11 - 3
    taught = student(SEED, soft_weight=1.0)
    fit(taught)
    assert not taught.model[-1].weight.equal(first[-1].weight)


# Teachers of other forms


def test_tokens_are_a_map_without_those_that_are_no_places():
    form = Form("ViT", prefix=2)
    tokens = torch.arange(2 * 11 * 5.0).reshape(2, 11, 5)
    assert form.map_shape((11, 5)) == (5, 3, 3)
    assert form.as_map(tokens)[1, :, 1, 2].equal(tokens[1, 2 + 5])
    maps = torch.randn(2, 4, 3, 5)
    assert Form().map_shape((4, 3, 5)) == (4, 3, 5) and Form().as_map(maps) is maps


@pytest.mark.parametrize("shape", [(10, 5), (1, 5), (5,), (8, 1, 1)])
def test_what_has_no_places(shape):
    with pytest.raises(
        InputError, match=r"the layer of Net whose places are compared gives \(.*local_weight 0"
    ) as error:
        Form("Net", prefix=1 if len(shape) == 2 and shape[0] == 1 else 0).map_shape(shape)
    assert len(str(error.value)) < 200


def test_a_vision_transformer_of_timm_teaches_by_its_class_token_and_its_grid():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 4, "in_chans": 1, "num_classes": 7}
    network = timm.models.VisionTransformer(**options, embed_dim=24, depth=2, num_heads=2, reg_tokens=3)
    method = student(SEED)
    batches = fit(method, PlainNetwork(network, image_size=16))
    pooled, tokens = batches[0].teacher.features
    assert pooled.shape == (100, 24) and tokens.shape == (100, 1 + 3 + 16, 24)
    assert method._forms[1] == Form("VisionTransformer", 4) and method.queue.shape == (256, 24)


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        ({"queue_length": 99}, {}, "SEED.queue_length is 99, and the pictures of a batch .*: give at least 100"),
        ({"layers": ["pooled"]}, {}, "the student has 1 layers and the teacher 2: give layers and teacher_layers"),
        (
            {"layers": ["all_stages"], "teacher_layers": ["all_stages"]},
            {},
            "SEED compares the pooled features and the last map, and 3 layers are given: give 2 of both networks",
        ),
        (
            {"layers": ["pooled", "stage1"], "teacher_layers": ["pooled", "pooled"]},
            {},
            r"the layer of ConvNet whose places are compared gives \(32,\), not two places or more: give an earlier",
        ),
        ({}, {"callback": SoftTargets(PlainNetwork(teacher()), "table")}, "vectors, and SEED reads whole maps"),
    ],
)
def test_what_cannot_be_compared_is_one_line_before_the_first_batch(options, given, words):
    with pytest.raises(InputError, match=words) as error:
        fit(student(SEED, **options), **given)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_auxiliary_classifiers_would_need_labels():
    network = type("GoogLeNet", (ConvNet,), {"aux_logits": True})()
    with pytest.raises(InputError, match="GoogLeNet has auxiliary classifiers, which need labels"):
        fit(SEED(network, optimizer=sgd))


@pytest.mark.parametrize("config", ["digits/seed.yaml", "digits/fitnets.yaml"])
def test_a_teacher_of_features_may_have_other_classes(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--trainer.max_epochs", 1, "--data", "ImageFolder", "--data.image_size", 8, "--data.val_size", 10]
    short += ["--data.root"]
    assert distill("fit", "--config", "digits/teacher", *short, write_pictures(tmp_path / "seven", 7, 20)) == 0
    teacher = ["--trainer.callbacks.teacher", next(Path("logs").rglob("last.ckpt"))]
    assert (run(config, *short, write_pictures(tmp_path / "three", 3, 40), *teacher) / "summary.json").exists()


# Fine-tuning


def test_a_run_with_labels_starts_from_the_whole_network(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ["--trainer.max_epochs", 1, "--data.train_part", 200]
    assert distill("fit", "--config", "digits/teacher", *short) == 0
    trained = run("digits/seed.yaml", *short)
    state = load(trained)["state_dict"]
    assert {name.partition(".")[0] for name in state} == {"model", "adapters"}
    tuned = run("digits/baseline.yaml", *short, "--start_from", trained, "--model.optimizer.lr", 1e-9)
    assert "20 of 20 tensors, 100.0% of the parameters" in capsys.readouterr().err
    after = load(tuned)["state_dict"]
    assert set(after) == {name for name in state if name.startswith("model.")}
    assert all(torch.allclose(after[n], state[n]) for n in after if n.endswith("weight"))


def test_what_lottery_asks_twice_is_released_once():
    """The check of the network runs twice, and the second time it sees what the first has frozen."""
    method = student(SEED)
    callbacks = [SoftTargets(PlainNetwork(teacher())), Lottery(rounds=1)]
    bare_trainer(max_epochs=1, callbacks=callbacks).fit(method, datamodule=Digits(batch_size=100, train_part=200))
    assert all(parameter.requires_grad for parameter in method.model.parameters())
