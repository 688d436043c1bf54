"""A generalist with specialists: how they start, train and resume, and what they say together."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from helpers import (
    CONFIGS,
    Kill,
    Killed,
    assert_same_run,
    distill,
    fit,
    kill_and_resume,
    load,
    rows,
    run_on,
)

import distill_lightning as dl
from distill_lightning.checkpoints import open_network
from distill_lightning.errors import InputError
from distill_lightning.joint import clamped_probs, closed_form, evidence, joint_probs
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.with_specialists import WithSpecialists
from distill_lightning.training import fit as training_fit

GENERALIST = "logs/digits/baseline/generalist/checkpoints/last.ckpt"
SMALL = ["--data.train_part", 600, "--data.batch_size", 40, "--trainer.log_every_n_steps", 2]


def specialist(name: str, *more) -> list:
    """The arguments of a specialist."""
    given = ["--config", CONFIGS / "digits" / "specialist.yaml", "--start_from", GENERALIST]
    given += ["--model.generalist", GENERALIST, *SMALL, "--trainer.max_epochs", 3, *more]
    return [*given, "--name", name] if name else given


def joint(name: str, specialists: list[str], *more) -> list:
    """The arguments of joint inference."""
    paths = json.dumps([f"logs/digits/specialist/{one}/checkpoints/last.ckpt" for one in specialists])
    given = ["--model", "JointInference", "--model.generalist", GENERALIST, "--model.specialists", paths]
    return [*given, "--data", "Digits", *SMALL, "--name", name, *more]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a generalist, three specialists, two whose classes overlap, and the joint inference of each."""
    folder, before = tmp_path_factory.mktemp("made"), Path.cwd()
    os.chdir(folder)
    try:
        fit("digits/baseline.yaml", *SMALL, "--trainer.max_epochs", 4, "--name", "generalist")
        for number in range(3):
            assert distill("fit", *specialist(f"s{number}", "--model.number", number)) == 0
        for number in range(2):
            more = ["--model.classes_per_specialist", 6, "--model.number", number, "--trainer.max_epochs", 1]
            assert distill("fit", *specialist(f"o{number}", *more)) == 0
        assert distill("fit", *joint("joint", ["s0", "s1", "s2"])) == 0
        assert distill("fit", *joint("overlapping", ["o0", "o1"], "--model.top", 2)) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(made, tmp_path) -> Path:
    """A copy of that folder, which is the working folder."""
    shutil.copytree(made / "logs", tmp_path / "logs", symlinks=True)
    return Path()


def run(name: str, method: str = "specialist") -> Path:
    return Path("logs/digits") / method / name


def test_what_a_specialist_keeps(here):
    kept = [load(run(f"s{number}"))["method"]["shared"] for number in range(3)]
    sets = kept[0]["sets"]
    assert all(one["sets"] == sets for one in kept)  # each has found the same clusters
    assert [one["classes"] for one in kept] == sets
    assert sorted(one for classes in sets for one in classes) == list(range(10))
    data = dl.Digits(train_part=600)
    data.setup("fit")
    special = int(torch.isin(data.samples.labels, torch.tensor(sets[0])).sum())
    assert kept[0]["correction"] == pytest.approx(float(torch.tensor((600 - special) / special).log()), abs=1e-6)
    summary = json.loads((run("s0") / "summary.json").read_text())
    assert summary["steps"] == 3 * (2 * special // 40)
    metrics = summary["metrics"]
    assert metrics["test/dustbin_share"] == pytest.approx(1 - len(sets[0]) / 10, abs=0.02)
    assert abs(metrics["test/dustbin_probs"] - metrics["test/dustbin_share"]) < 0.06  # corrected: 0.5 without
    assert 0.9 < metrics["test/special_accuracy"] <= 1
    assert {"val/dustbin_nll", "val/special_accuracy"} <= metrics.keys()
    assert not any(key.partition(".")[0] != "model" for key in load(run("s0"))["state_dict"])


def test_it_begins_as_the_generalist_and_hears_it_at_the_end(here, capsys):
    """At a rate of 0 it stays the generalist, whose soft targets it meets exactly."""
    still = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.0, "--model.network.dropout", 0.0]
    assert distill("fit", *specialist("still", *still, "--model.soft_from", 0.5)) == 0
    assert "does not start from" not in capsys.readouterr().err
    before, after = load(run("generalist", "baseline"))["state_dict"], load(run("still"))["state_dict"]
    assert all(torch.equal(value, after[key]) for key, value in before.items() if key.endswith("weight"))
    soft = {step: value for step, tag, value in rows(run("still")) if tag == "train/loss_soft"}
    hard = {step: value for step, tag, value in rows(run("still")) if tag == "train/loss_hard"}
    steps = sorted(soft)
    assert soft[steps[0]] == 0.0  # not asked before soft_from
    assert soft[steps[-1]] > 0.0  # batch norm is in training mode there
    assert hard[steps[0]] > hard[steps[-1]]  # and then counts half
    given = [word for word in specialist("elsewhere") if word not in ("--start_from",)]
    given.remove(GENERALIST)
    alone = ["--start_from", run("s1"), "--trainer.max_epochs", 1]
    assert distill("fit", *given, *alone) == 0
    assert "does not start from the generalist's weights" in capsys.readouterr().err


def test_killed_and_resumed(here, monkeypatch):
    """At random hooks, also after the generalist's soft targets are there."""
    given = [*specialist(""), "--checkpoint.every_n_steps", 2, "--model.network.dropout", 0.3]
    assert distill("fit", *given, "--name", "whole") == 0
    kill_and_resume(given, random.Random(1), monkeypatch, times=5, reach=7)
    assert_same_run(run("whole"), run("killed"))


def test_two_processes(here):
    """Without batch norm: a specialist, and the table of joint inference, agree to rounding."""
    network = ["--model.network", "LeNet300100"]
    config = ["--config", CONFIGS / "digits" / "baseline.yaml", *network, *SMALL, "--trainer.max_epochs", 1]
    assert distill("fit", *config, "--name", "plain") == 0
    plain = "logs/digits/baseline/plain/checkpoints/last.ckpt"
    for devices in (1, 2):
        more = [*network, "--start_from", plain, "--model.generalist", plain, "--trainer.max_epochs", 2]
        run_on(devices, "fit", *specialist(f"on-{devices}", *more))
        run_on(devices, "fit", *joint(f"on-{devices}", ["on-1"], "--model.generalist", plain))
    one, two = (load(run(f"on-{devices}")) for devices in (1, 2))
    assert one["method"]["shared"] == two["method"]["shared"]
    assert all((value - two["state_dict"][key]).abs().max() < 2e-6 for key, value in one["state_dict"].items())
    first, second = (rows(run(f"on-{devices}", "joint_inference")) for devices in (1, 2))
    assert [row[:2] for row in first] == [row[:2] for row in second]
    for (_, tag, a), (_, _, b) in zip(first, second, strict=True):
        assert a == b if tag.endswith("_by_coverage") else a == pytest.approx(b, rel=1e-6), tag
    weights = [load(run(f"on-{devices}", "joint_inference"))["state_dict"] for devices in (1, 2)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_the_table_is_what_the_networks_say(here):
    """By hand, from the checkpoints."""
    data = dl.Digits(train_part=600)
    data.setup("test")
    images, labels = data.normaliser(data.test.source.images), data.test.labels
    with torch.no_grad():
        general = open_network(GENERALIST)(images).double()
        each = [open_network(run(f"s{number}") / "checkpoints/last.ckpt")(images).double() for number in range(3)]
    sets = load(run("s0"))["method"]["shared"]["sets"]
    owner = {one: number for number, classes in enumerate(sets) for one in classes}
    chosen = torch.tensor([owner[one] for one in general.argmax(1).tolist()])
    members = torch.zeros(3, 10, dtype=torch.bool)
    for number, classes in enumerate(sets):
        members[number, classes] = True
    own = torch.stack(each, 1)[torch.arange(len(labels)), chosen].softmax(1)
    inside = members[chosen]
    q = closed_form(clamped_probs(general), own * inside, (own * ~inside).sum(1), inside)
    found = json.loads((run("joint", "joint_inference") / "summary.json").read_text())["metrics"]
    assert found["test/accuracy"] == pytest.approx(float((q.argmax(1) == labels).double().mean()), abs=1e-6)
    nll = torch.nn.functional.nll_loss(q.log(), labels)
    assert found["test/nll"] == pytest.approx(float(nll), rel=1e-5)
    assert found["test/generalist_accuracy"] == pytest.approx(float((general.argmax(1) == labels).double().mean()))
    assert found["test/specialists_asked"] == 1.0
    correct = members[[owner[one] for one in labels.tolist()]]
    within = [logits.masked_fill(~correct, -torch.inf) for logits in (general, q)]
    assert found["test/generalist_conditional_accuracy"] == pytest.approx(
        float((within[0].argmax(1) == labels).double().mean())
    )
    assert found["test/conditional_accuracy"] == pytest.approx(float((within[1].argmax(1) == labels).double().mean()))
    wrong = general.argmax(1) != labels
    same_set = torch.tensor([owner[one] for one in labels.tolist()]) == chosen
    assert found["test/repairable"] == pytest.approx(float((wrong & same_set).sum() / wrong.sum()))
    by_coverage = {(step, tag): value for step, tag, value in rows(run("joint", "joint_inference"))}
    assert by_coverage[1, "test/pictures_by_coverage"] == 360
    assert (0, "test/pictures_by_coverage") not in by_coverage
    assert by_coverage[1, "test/right_by_coverage"] == int((q.argmax(1) == labels).sum())


def test_sets_that_overlap(here):
    """The coverage counts the sets with the correct class; the network's answer is the fixed point."""
    file = run("overlapping", "joint_inference") / "checkpoints/last.ckpt"
    network = open_network(file)
    assert isinstance(network, WithSpecialists) and not network.at_most_one
    data = dl.Digits(train_part=600)
    data.setup("test")
    images, labels = data.normaliser(data.test.source.images), data.test.labels
    answer = network.answer(images)
    with torch.no_grad():
        special = torch.stack([one(images) for one in network.specialists], 1)
        general = network.generalist(images)
    given = evidence(general, special, answer.asked, network.members)
    assert torch.allclose(joint_probs(given, gap=1e-12).probs, answer.log_probs.exp(), rtol=0, atol=1e-3)
    assert bool((joint_probs(given, gap=1e-6).probs.log() == answer.log_probs)[answer.asked.any(1)].all())
    alone = ~answer.asked.any(1)
    assert torch.equal(answer.log_probs[alone], answer.general[alone])
    coverage = network.members.sum(0)[labels].bincount(minlength=3)
    seen = {step: value for step, tag, value in rows(run("overlapping", "joint_inference")) if "t/pictures" in tag}
    assert seen == {step: count for step, count in enumerate(coverage.tolist()) if count}


def test_only_the_specialists_in_question_are_asked():
    torch.manual_seed(0)
    network = WithSpecialists(lambda: ConvNet(width=4), [[0, 1, 2], [3, 4], [5, 6]]).eval()
    seen = [0, 0, 0]
    for number, one in enumerate(network.specialists):
        one.register_forward_hook(lambda _, given, __, number=number: seen.__setitem__(number, len(given[0])))
    images = torch.randn(64, 1, 8, 8)
    answer = network.answer(images)
    assert seen == answer.asked.sum(0).tolist()
    assert sum(seen) < 64  # nobody is asked for 7, 8 and 9
    assert bool((answer.asked.sum(1) <= 1).all())
    with torch.no_grad():
        together = network._all_at_once(images)
    assert torch.allclose(together, answer.log_probs, rtol=0, atol=1e-5)


def test_without_the_correction(here):
    assert distill("fit", *joint("biased", ["s0", "s1", "s2"], "--model.correction", "false")) == 0
    bias = load(run("biased", "joint_inference"))["hyper_parameters"]["network"]["init_args"]["dustbin_bias"]
    kept = [load(run(f"s{number}"))["method"]["shared"]["correction"] for number in range(3)]
    assert bias == [-one for one in kept]
    networks = [open_network(run(name, "joint_inference") / "checkpoints/last.ckpt") for name in ("joint", "biased")]
    data = dl.Digits(train_part=600)
    data.setup("test")
    images = data.normaliser(data.test.source.images)
    answers = [network.answer(images) for network in networks]
    asked = networks[0].members[answers[0].asked.long().argmax(1)]
    outside = [(answer.log_probs.exp() * ~asked).sum(1) for answer in answers]
    assert bool((outside[1] < outside[0]).all())  # the others look rarer than they are


def test_it_is_a_network_like_others(here, capsys):
    """Loaded, tested, a teacher; the files of its specialists are not needed any more."""
    folder = run("joint", "joint_inference")
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    shutil.rmtree("logs/digits/specialist")
    shutil.rmtree("logs/digits/baseline")
    data = dl.Digits(train_part=600)
    data.setup("test")
    classifier = dl.load(folder)
    found = classifier.predict(data.test.source.images)
    right = [data.class_names[k] for k in data.test.labels.tolist()]
    accuracy = sum(a == b for a, b in zip(found.classes, right, strict=True)) / 360
    assert accuracy == pytest.approx(metrics["test/accuracy"], abs=1e-6)
    file = folder / "checkpoints/last.ckpt"
    assert distill("test", "--ckpt_path", file) == 0
    assert f"{metrics['test/accuracy']:.4f}" in capsys.readouterr().out
    taught = ["--trainer.callbacks.teacher", folder, *SMALL, "--trainer.max_epochs", 1]
    student = fit("digits/kd.yaml", *taught)
    assert json.loads((student / "summary.json").read_text())["metrics"]["test/accuracy"] > 0.5


def test_the_table_is_made_again_after_a_kill(here, monkeypatch):
    """Also if the checkpoint is there, and the summary is not."""

    def killed(*_):
        raise Killed

    given = joint("killed", ["s0", "s1", "s2"], "--ckpt_path", "auto")
    with monkeypatch.context() as patch:
        patch.setattr(training_fit, "write_summary", killed)
        assert distill("fit", *given) == 1
    assert (run("killed", "joint_inference") / "checkpoints/last.ckpt").is_file()
    assert not (run("killed", "joint_inference") / "summary.json").exists()
    assert distill("fit", *given) == 0
    assert_same_run(run("killed", "joint_inference"), run("joint", "joint_inference"))


def test_export(here):
    pytest.importorskip("onnxruntime")
    report = dl.export(run("joint", "joint_inference"), pictures=200)
    assert max(one["probs"] for one in report.parity.batches.values()) < 1e-4
    assert set(report.parity.same_class.values()) == {1.0}
    with pytest.raises(InputError, match="several specialists may be active") as error:
        dl.export(run("overlapping", "joint_inference"))
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--model.specialists", 11], "specialists is 11, more than the 10 classes"),
        (["--model.specialists", 6], "6 clusters of 10 classes leave a cluster of one"),
        (["--model.number", 3], "with 3 specialists it is at most 2"),
        (["--model.generalist", "nowhere"], "there is no generalist nowhere"),
        (["--data.mix", "Mixup"], "needs pictures of one sample each, without mixing"),
        (["--config", CONFIGS / "callbacks" / "lottery.yaml"], "a specialist is not trained in rounds"),
    ],
)
def test_bad_inputs(here, capsys, more, words):
    before = sorted(Path("logs").rglob("*"))
    assert distill("fit", *specialist("bad", *more)) != 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert words in lines[-1] and len(lines[-1]) < 200
    assert sorted(Path("logs").rglob("*")) == before


def test_other_data_and_other_networks(here, mnist, pictures, capsys):
    """Fewer than ten classes; a generalist of other data, also with the same class names; not its own specialists."""
    few = ["--data", "ImageFolder", "--data.root", pictures, "--data.image_size", 8, "--data.grey", "true"]
    of_mnist = ["--data", "MNIST", "--data.root", mnist, "--model.network", "ConvNet"]
    cases = ((few, "specialists need 10 classes or more"), (of_mnist, "was trained on other pictures, of digits"))
    for more, words in cases:
        given = ["--model", "Specialist", "--model.network", "ConvNet", "--model.generalist", GENERALIST]
        given += ["--model.specialists", 3, "--trainer.max_epochs", 1, "--name", "bad", *more]
        assert distill("fit", *given) != 0
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert words in last and len(last) < 220
    shutil.copytree(run("generalist", "baseline"), run("specialised", "baseline"))
    as_specialist = json.dumps(["logs/digits/baseline/specialised/checkpoints/last.ckpt"])
    assert distill("fit", *joint("bad", [], "--model.specialists", as_specialist)) != 0
    assert "is no specialist: give runs of the method Specialist" in capsys.readouterr().err
    other = ["--model.generalist", "logs/digits/specialist/s1/checkpoints/last.ckpt"]
    assert distill("fit", *joint("bad", ["s0"], *other)) != 0
    assert "is a specialist of another generalist" in capsys.readouterr().err


def test_a_specialist_goes_on_with_its_own_generalist_alone(here, capsys, monkeypatch):
    given = [*specialist("cut"), "--checkpoint.every_n_steps", 2]
    with monkeypatch.context() as patch:
        Kill(patch, "on_train_batch_end", 7)
        assert distill("fit", *given) == 1
    kept = Path("kept.ckpt")
    shutil.copy(GENERALIST, kept)
    shutil.copy(run("s1") / "checkpoints/last.ckpt", GENERALIST)  # other weights at the same place
    assert distill("fit", *given, "--ckpt_path", "last") != 0
    assert "this specialist was started with another generalist" in capsys.readouterr().err
    shutil.copy(kept, GENERALIST)
    assert distill("fit", *given, "--ckpt_path", "last") == 0
