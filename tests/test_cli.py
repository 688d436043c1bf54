"""The command, as a user calls it."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers import CONFIGS, assert_same_run, command, distill, events, fit, load, rows, write_pictures

from distill_lightning.methods.checks import half_precision_is_slow
from distill_lightning.runs.summary import read_confusion

YAMLS = sorted(CONFIGS.glob("*/*.yaml"))
FAST = ["--trainer.max_epochs", 1, "--trainer.check_val_every_n_epoch", 1]


@pytest.fixture
def small(request, mnist, cifar10, cifar100, pictures):
    """Options that point a family of YAMLs at small data of the same shapes."""
    full = ["--trainer.precision", "32-true"] if half_precision_is_slow() else []
    return {
        "digits": [],
        "mnist": ["--data.root", mnist, "--data.train_part", 150],
        "cifar10": ["--data.root", cifar10, "--data.batch_size", 32, "--data.train_part", 64],
        "cifar100": ["--data.root", cifar100, "--data.train_part", "1 per class", "--data.val_size", 0.25, *full],
        "folder": ["--data.root", pictures, "--data.image_size", 16, "--data.batch_size", 32],
        "multi_view": ["--data.samples", 40, "--data.batch_size", 40, "--data.dimension", 20],
    }


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fit whose run is kept: the next time, the same one is copied to the same place."""
    kept: dict[tuple, Path] = {}

    def fit_once(config: str, *args) -> Path:
        key = (config, *map(str, args))
        if key not in kept:
            run = fit(config, *args)
            kept[key] = tmp_path_factory.mktemp("kept") / run
            shutil.copytree(run, kept[key])
            return run
        run = Path(*kept[key].parts[-4:])
        shutil.copytree(kept[key], run)
        return run

    return fit_once


@pytest.mark.parametrize(
    "path",
    [p for p in YAMLS if p.parent.name not in ("callbacks", "recipes", "searches", "studies")],
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_every_yaml_runs(path, small, fitted):
    given = [*small[path.parent.name], *FAST]
    if "Lottery" in path.read_text():
        given += ["--trainer.callbacks.rounds", 1, "--trainer.callbacks.length", "2 steps", "--data.val_size", 0.2]
        given += ["--trainer.val_check_interval", 1, "--trainer.callbacks.rewind_to", "1 steps"]
    model = yaml.safe_load(path.read_text())["model"]
    few = ["--data.batch_size", 8] if path.parent.name == "cifar100" else []  # an epoch of a specialist is ten pictures
    if "# first:" in path.read_text():
        # its teacher or members are the runs that the comment names, at the place that the YAML names
        first = path.read_text().split("configs/")[1].split()[0].rstrip(",")
        callbacks = yaml.safe_load(path.read_text()).get("trainer", {}).get("callbacks", [])
        arguments = model.get("init_args", {})
        needed = arguments.get("members") or arguments.get("generalist") or callbacks[0]["init_args"]["teacher"]
        needed = needed if isinstance(needed, list) else [needed]
        made = [fitted(first, *given)]
        made += [fitted(first, *given, "--seed_everything", seed) for seed in range(1, len(needed))]
        if model["class_path"] == "JointInference":
            needed += arguments["specialists"]
            made.append(fit(f"{path.parent.name}/specialist.yaml", *given, *few))
        assert made == [Path(checkpoint).parent.parent for checkpoint in needed]
    run = fit(str(path), *given, *(few if path.stem == "specialist" else []))
    summary = json.loads((run / "summary.json").read_text())
    assert 0 <= summary["metrics"]["test/accuracy"] <= 1
    if model.get("class_path") == "JointInference":
        assert {"test/specialists_asked", "test/right_by_coverage", "val/nll"} <= set(events(run))
        return
    if model.get("class_path") == "Ensemble":
        assert {"test/disagreement", "test/accuracy_by_members", "val/nll"} <= set(events(run))
        return
    assert summary["epochs"] == 1 if "rounds" not in summary else len(summary["rounds"]) == 2
    assert {"last.ckpt", "best.ckpt"} == {f.name for f in (run / "checkpoints").iterdir()}
    checkpoint = load(run)
    beside = {"DML": {"peers"}, "KDCL": {"peers"}, "BYOT": {"heads"}, "MrKD": {"fusion"}, "CTKD": {"raw_temperature"}}
    beside |= {"Branches": {"branches"}, "ONE": {"branches", "gate"}, "OKDDip": {"branches", "query", "key"}}
    beside |= {"PCL": {"branches", "group"}}
    beside |= {name: {"adapters"} for name in ("FitNets", "OFD", "ReviewKD", "CRD", "SEED", "VID", "SRRL")}
    trained = {"model"} | beside.get(model.get("class_path"), set())
    assert {k.partition(".")[0] for k in checkpoint["state_dict"]} == trained
    assert {"train/epoch_loss", "val/accuracy", "test/ece"} <= set(events(run))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of the baseline on the digits, in a folder of its own."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("trained"))
    run = fit("digits/baseline.yaml", "--trainer.max_epochs", 5).resolve()
    os.chdir(before)
    return run


def test_what_a_run_leaves(trained):
    assert sorted(f.name.partition(".")[0] for f in trained.iterdir()) == [
        "checkpoints", "config", "confusion", "events", "identity", "metrics", "summary",
    ]  # fmt: skip
    names, counts = read_confusion(trained)
    assert names == [str(k) for k in range(10)] and sum(map(sum, counts)) == 360
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["steps"] == 100
    assert summary["exposures"] == 100 * 64
    assert summary["parameters"] == 24_058
    assert summary["density"] == 1.0
    assert summary["wall_time_s"] > 0
    assert {"seed", "config_digest", "versions"} <= summary.keys()
    tags = {tag for _, tag, _ in rows(trained)}
    assert {"train/loss", "train/loss_ce", "train/accuracy", "train/lr", "train/exposures", "val/nll"} <= tags


def test_the_numbers_are_right(trained, capsys):
    """Accuracy and NLL of the test split, by hand, from the checkpoint alone."""
    from distill_lightning.checkpoints import open_network
    from distill_lightning.data.digits import Digits

    data = Digits()
    data.setup("test")
    network = open_network(trained / "checkpoints" / "last.ckpt")
    with torch.no_grad():
        logits = network(data.normaliser(data.test.source.images))
    accuracy = (logits.argmax(1) == data.test.labels).double().mean().item()
    nll = torch.nn.functional.cross_entropy(logits.double(), data.test.labels).item()
    metrics = json.loads((trained / "summary.json").read_text())["metrics"]
    assert metrics["test/accuracy"] == pytest.approx(accuracy)
    _, counts = read_confusion(trained)
    assert sum(row[k] for k, row in enumerate(counts)) / 360 == pytest.approx(accuracy)
    assert metrics["test/nll"] == pytest.approx(nll, rel=1e-4)


def test_config_fed_back_repeats_the_run(trained):
    assert distill("fit", "--config", trained / "config.yaml", "--log_dir", "again") == 0
    assert_same_run(trained, Path("again/digits/baseline") / trained.name)


def test_a_second_start_takes_the_next_number():
    first, second = (fit("digits/baseline.yaml", *FAST) for _ in range(2))
    assert (first.name, second.name) == ("convnet-seed0", "convnet-seed0-2")


def test_the_folder_is_printed_first_and_last(capsys):
    run = fit("digits/baseline.yaml", *FAST)
    out = capsys.readouterr().out.strip().splitlines()
    assert out[0] == out[-1] == f"run: {run}"


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_a_checkpoint_alone_is_enough(verb, trained, capsys):
    assert distill(verb, "--ckpt_path", trained / "checkpoints" / "last.ckpt") == 0
    metrics = json.loads((trained / "summary.json").read_text())["metrics"]
    stage = {"validate": "val", "test": "test"}[verb]
    assert f"{metrics[f'{stage}/accuracy']:.4f}" in capsys.readouterr().out


def test_last_and_best_are_found_by_name(trained, capsys):
    log_dir = trained.parent.parent.parent
    for name in ("last", "best"):
        given = ["--config", CONFIGS / "digits" / "baseline.yaml", "--log_dir", log_dir, "--ckpt_path", name]
        assert distill("test", *given) == 0


def test_predictions_of_the_test_split(trained):
    assert distill("predict", "--ckpt_path", trained / "checkpoints" / "last.ckpt") == 0
    with open(trained / "predictions.csv") as file:
        found = list(csv.DictReader(file))
    assert [int(row["index"]) for row in found] == list(range(360))
    right = sum(row["label"] == row["predicted"] for row in found) / 360
    metrics = json.loads((trained / "summary.json").read_text())["metrics"]
    assert right == pytest.approx(metrics["test/accuracy"])
    assert sum(float(v) for k, v in found[0].items() if k.startswith("prob_")) == pytest.approx(1, abs=1e-4)


def test_predictions_of_a_folder_of_pictures(trained, tmp_path):
    write_pictures(tmp_path / "mine", 2, 3)
    given = ["--ckpt_path", trained / "checkpoints" / "last.ckpt", "--data.pictures", tmp_path / "mine"]
    assert distill("predict", *given) == 0
    with open(trained / "predictions-mine.csv") as file:
        found = list(csv.DictReader(file))
    assert [row["file"] for row in found] == [f"class_00{c}/00{i}.png" for c in range(2) for i in range(3)]
    assert {row["label"] for row in found} == {""}


def test_predictions_do_not_need_the_training_data(pictures, tmp_path):
    root = Path(shutil.copytree(pictures, tmp_path / "mine"))
    run = fit("folder/baseline.yaml", "--data.root", root, "--data.image_size", 16, "--data.batch_size", 32, *FAST)
    shutil.move(root / "test", tmp_path / "new")
    shutil.rmtree(root)
    given = ["--ckpt_path", run / "checkpoints" / "last.ckpt", "--data.pictures", tmp_path / "new"]
    assert distill("predict", *given) == 0
    with open(run / "predictions-new.csv") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 18
    assert found[0]["predicted"].startswith("class_00")


def test_a_torchvision_network_learns_its_classes_from_the_data(pictures):
    given = ["--data.root", pictures, "--data.image_size", 32, "--data.batch_size", 32, *FAST]
    run = fit("folder/baseline.yaml", *given, "--model.network", "torchvision.models.mobilenet_v3_small")
    assert load(run)["state_dict"]["model.classifier.3.bias"].shape == (3,)
    assert distill("test", "--ckpt_path", run / "checkpoints" / "last.ckpt") == 0


def test_a_network_and_a_method_of_ones_own(monkeypatch, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "from distill_lightning.methods.base import Method\n"
        "from distill_lightning.values import StepOutput\n"
        "class Tiny(nn.Module):\n"
        "    def __init__(self, num_classes: int, image_size: int = 1):\n"
        "        super().__init__()\n"
        "        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, num_classes))\n"
        "    def forward(self, images):\n"
        "        return self.layers(images)\n"
        "class Halved(Method):\n"
        "    def __init__(self, network: nn.Module, **kwargs):\n"
        "        super().__init__(network, **kwargs)\n"
        "    def training_loss(self, batch, position):\n"
        "        logits = self(batch.images)\n"
        "        return StepOutput({'half': 0.5 * self.cross_entropy(logits, batch)}, logits)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load((CONFIGS / "digits" / "baseline.yaml").read_text())
    config["model"] = {"class_path": "mine.Halved", "init_args": {"network": {"class_path": "mine.Tiny"}}}
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    run = fit(str(Path("mine.yaml").resolve()), *FAST)
    assert run.parent.name == "mine"
    assert "train/loss_half" in events(run)
    last = run / "checkpoints" / "last.ckpt"
    assert distill("test", "--ckpt_path", last) == 2  # a file may not ask for them, unless the user says so
    assert "--trust mine.Halved --trust mine.Tiny" in capsys.readouterr().err
    assert distill("test", "--ckpt_path", last, "--trust", "mine.Halved", "--trust=mine.Tiny") == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.precision", "bf16-mixed"],
        ["--model.channels_last", "true"],
        ["--model.optimizer", "Adam", "--model.optimizer.fused", "true"],
        ["--model.optimizer", "torch.optim.AdamW", "--model.decay_norms_and_biases", "false"],
        ["--model.schedule", "MultiStep", "--model.schedule.milestones", "[1]"],
        ["--trainer.gradient_clip_val", "1.0"],
        ["--data.keep_last", "true"],
        ["--data.val_size", "0"],
        ["--data.train_part", "10 per class"],
    ],
    ids=lambda o: o[0],
)
def test_options_of_any_run(options):
    run = fit("digits/dlb.yaml", *FAST, *options)
    assert json.loads((run / "summary.json").read_text())["steps"] > 0


# Wrong input: one line, status 2

BASE = CONFIGS / "digits" / "baseline.yaml"
KD = CONFIGS / "digits" / "kd.yaml"
DLB = CONFIGS / "digits" / "dlb.yaml"
LOTTERY = CONFIGS / "callbacks" / "lottery.yaml"


@pytest.mark.parametrize(
    ("config", "given", "words"),
    [
        (BASE, ["--trainer.max_epoch", 3], ["--trainer.max_epoch;", "did you mean --trainer.max_epochs?"]),
        (BASE, ["--data.batchsize", 3], ["--data.batchsize", "did you mean --data.batch_size?"]),
        (BASE, ["--model", "Baselin"], ["Baselin", "did you mean Baseline?"]),
        (BASE, ["--model.network", "ConvNt"], ["model.network", "did you mean ConvNet?"]),
        (BASE, ["--model.network.widht", 4], ["widht", "did you mean --model.network.width?"]),
        (BASE, ["--model.optimizer", "Adamm"], ["model.optimizer", "did you mean Adam?"]),
        (BASE, ["--data.batch_size", "many"], ["data.batch_size is many: expected int"]),
        (CONFIGS / "studies" / "quick.yaml", [], ["is a study: run it with distill study"]),
        (BASE, ["--data.augment", "RandomCrop"], ["data.augment is RandomCrop: expected a list"]),
        (
            BASE,
            ["--trainer.callbacks.teacher", "x"],
            ["trainer.callbacks.teacher: there is no callback with this option"],
        ),
        (BASE, ["--trainer.epochs", 2], ["no option --trainer.epochs; did you mean --trainer.max_epochs?"]),
        (BASE, ["--model.optimizer", "adamw"], ["did you mean AdamW?"]),
        (BASE, ["--model.label_smoothing", 2], ["label_smoothing is 2.0"]),
        (BASE, ["--data.batch_size", 5000], ["batch_size 5000 is larger", "1293"]),
        (BASE, ["--data.batch_size", 1], ["batch norm needs 2 samples"]),
        (BASE, ["--trainer.max_steps", 5], ["trainer.max_epochs"]),
        (BASE, ["--ckpt_path", "last"], ["there is no unfinished run"]),
        (BASE, ["--ckpt_path", "nowhere.ckpt"], ["there is no checkpoint nowhere.ckpt"]),
        (BASE, ["--data.train_part", "9 a class"], ["train_part"]),
        (BASE, ["--model.network.num_classes", 7], ["ConvNet.num_classes is 7", "leave it out"]),
        (BASE, ["--data", "MNIST", "--data.root", "nothing"], ["MNIST is missing or damaged in nothing"]),
        (BASE, ["--data", "CIFAR100", "--data.root", "nothing"], ["CIFAR100 is missing or damaged in nothing"]),
        (BASE, ["--checkpoint.monitor", "val/acc"], ["checkpoint.monitor is val/acc", "val/accuracy"]),
        (BASE, ["--trainer.max_epochs", -1], ["trainer.max_epochs is -1"]),
        (BASE, ["--trainer.overfit_batches", 2], ["data.train_part"]),
        (
            BASE,
            ["--trainer.accumulate_grad_batches", 4, "--trainer.val_check_interval", 2],
            ["val_check_interval a multiple of 4"],
        ),
        (
            BASE,
            [
                "--trainer.accumulate_grad_batches=2",
                "--trainer.val_check_interval=4",
                "--data.batch_size=250",
                "--trainer.check_val_every_n_epoch=null",
            ],
            ["falls between the 2", "val_check_interval a multiple of 5"],
        ),
        (BASE, ["--checkpoint.every_n_steps", 0], ["checkpoint.every_n_steps is 0"]),
        (KD, [], ["there is no teacher", "train it first"]),
        (BASE, ["--model.optimizer.lr", "fast"], ["lr is fast: expected float"]),
        (BASE, ["--trainer.max_epochs", "two"], ["trainer.max_epochs is two: expected int"]),
        (BASE, ["--model.network", "torchvision.models.resnet81"], ["did you mean resnet18?"]),
        (KD, ["--model.temperature", 0], ["temperature is 0.0"]),
        (KD, ["--trainer.callbacks.views", "two"], ["trainer.callbacks.views is two: expected int"]),
        (KD, ["--trainer.callbacks.mode", "of"], ["trainer.callbacks.mode is of: expected one of online, table"]),
        (
            KD,
            ["--config", LOTTERY, "--trainer.callbacks.teacher", "x"],
            ["Lottery, the last", "no option teacher: give"],
        ),
        (KD, ["--model.soft_weight=-1"], ["soft_weight is -1.0"]),
        (DLB, ["--model.alpha=-1"], ["alpha is -1.0"]),
        (DLB, ["--model.network", "LeNet300100", "--data.batch_size", 1], ["DLB needs 2 samples"]),
        (CONFIGS / "folder" / "baseline.yaml", ["--data.root", "nothing"], ["there is no folder nothing"]),
        (CONFIGS / "digits" / "baselin.yaml", [], ["there is no file", "digits/baseline.yaml?"]),
    ],
)
def test_wrong_input(config, given, words, capsys, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", no_network)
    assert distill("fit", "--config", config, *given) == 2
    output = capsys.readouterr()
    (line,) = output.err.strip().splitlines()
    assert line.startswith("distill: ")
    for word in words:
        assert word in line
    assert not list(Path().glob("logs/*/*/*/config.yaml"))  # the corrected start gets the name


def no_network(*args):
    raise OSError("no network in tests")


def test_a_yaml_that_is_none(capsys):
    Path("bad.yaml").write_text("a: [b\n c: {")
    assert distill("fit", "--config", "bad.yaml") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "bad.yaml is not a YAML file" in line
    assert "line 2" in line


def test_no_command_and_a_wrong_one(capsys):
    assert distill() == 2
    assert distill("fti") == 2
    assert "did you mean fit?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--model.network", "LeNet300100"),
        ("--data.batch_size", 32),
        ("--model.optimizer.lr", 0.2),
        ("--trainer.max_epochs", 9),
        ("--model.network.width", 8),
    ],
)
def test_resume_with_something_else_is_refused_by_name(option, value, trained, capsys):
    (trained / "summary.json").rename(trained / "finished")
    try:
        given = ["--config", trained / "config.yaml", "--log_dir", trained.parent.parent.parent, "--ckpt_path", "last"]
        assert distill("fit", *given, option, value) == 2
    finally:
        (trained / "finished").rename(trained / "summary.json")
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert option.rpartition(".")[2] in line
    assert "was started with" in line


def test_resume_with_other_data_is_refused(capsys):
    run = fit("digits/baseline.yaml", *FAST)
    shutil.rmtree(run / "summary.json", ignore_errors=True)
    (run / "summary.json").unlink()
    given = ["--config", run / "config.yaml", "--ckpt_path", run / "checkpoints" / "last.ckpt"]
    assert distill("fit", *given, "--data", "MNIST") == 2
    assert "was started with" in capsys.readouterr().err


def test_evaluation_goes_by_what_the_checkpoint_knows_of_its_data(tmp_path, capsys):
    root = write_pictures(tmp_path / "p", 3, 30)
    given = ["--data.root", root, "--data.image_size", 16, "--data.batch_size", 32, *FAST]
    run = fit("folder/baseline.yaml", *given, "--model.network", "ConvNet")
    checkpoint = ["--ckpt_path", run / "checkpoints" / "last.ckpt"]
    assert distill("validate", *checkpoint) == 0
    assert distill("validate", *checkpoint, "--data.split_seed", 3) == 2
    assert "validation pictures" in capsys.readouterr().err
    (root / "class_002").rename(root / "another")
    assert distill("validate", *checkpoint) == 2
    assert "lacks class_002; it also has another" in capsys.readouterr().err


def test_log_every_n_steps_can_be_off():
    run = fit("digits/baseline.yaml", *FAST, "--trainer.log_every_n_steps", 0)
    assert "train/loss" not in events(run)
    assert "train/epoch_loss" in events(run)


def test_a_checkpoint_of_other_classes(trained, tmp_path, capsys):
    root = write_pictures(tmp_path / "two", 2, 30)
    given = ["--config", CONFIGS / "folder" / "baseline.yaml", "--data.root", root, "--model.network", "ConvNet"]
    assert distill("validate", *given, "--ckpt_path", trained / "checkpoints" / "last.ckpt") == 2
    assert "trained on other classes than two has" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["torn", "foreign"])
def test_broken_checkpoints(name, trained, capsys):
    whole = (trained / "checkpoints" / "last.ckpt").read_bytes()
    Path("torn.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({"a": 1}, "foreign.ckpt")
    assert distill("test", "--ckpt_path", f"{name}.ckpt") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{name}.ckpt" in line


def test_not_a_number_fails_the_run(capsys):
    assert distill("fit", "--config", BASE, "--model.optimizer.lr", 1e6) == 1
    assert "the loss is not finite from step" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(Path().glob("logs/*/*/*/summary.json"))


def test_statuses_of_the_real_command():
    """From the shell: status, the last line on standard error, no traceback, quiet otherwise."""
    wrong = subprocess.run(command("fit", "--config", BASE, "--data.batchsize", 3), capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert len(wrong.stderr.strip().splitlines()) == 1
    right = subprocess.run(command("fit", "--config", BASE, *FAST), capture_output=True, text=True)
    assert right.returncode == 0
    assert right.stdout.strip().splitlines()[-1].startswith("run: logs/digits/baseline/")
    assert len(right.stderr.strip().splitlines()) == 1  # the one epoch


def test_an_error_in_a_file_of_ones_own_is_told_with_its_line(capsys, monkeypatch):
    Path("of_ones_own.py").write_text(
        "from distill_lightning.methods.base import Method\n\n\n"
        "class Mistyped(Method):\n    def training_loss(self, batch, position):\n        return {'ce': batch.image.sum()}\n\n\n"  # noqa: E501
        "class Bare(Method):\n    def training_loss(self, batch, position):\n        return self(batch.images).sum()\n"
    )
    monkeypatch.syspath_prepend(".")
    assert distill("fit", "--config", BASE, *FAST, "--model", "of_ones_own.Mistyped") == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "AttributeError: 'Batch' object has no attribute 'image'" in last and last.endswith(
        "of_ones_own.py:6; DISTILL_TRACEBACK=1 shows all)"
    )
    assert distill("fit", "--config", BASE, *FAST, "--model", "of_ones_own.Bare") == 2
    assert "Bare.training_loss gives a Tensor: expected a StepOutput" in capsys.readouterr().err


def test_bench_prints_ratios(capsys):
    assert distill("bench", "--config", BASE, "--turns", 3, "--steps", 5) == 0
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert result["turns"] == 3
    assert result["rows"] == 64
    assert result["run_s"] > result["data_s"] > 0
    assert 10_000 < result["checkpoint_bytes"] < 10**7
    if sys.platform == "linux":
        assert 10**8 < result["peak_bytes"] < 10**10
    assert not Path("logs").exists()


@pytest.mark.parametrize(("given", "message"), [(["--turns", 1], "turns is 1"), (["--steps", 0], "steps is 0")])
def test_bench_of_nothing(given, message, capsys):
    assert distill("bench", "--config", BASE, *given) == 2
    assert message in capsys.readouterr().err


def test_bench_gives_the_bare_loop_as_many_pictures(capsys):
    sizes = []
    for config in (DLB, BASE):
        assert distill("bench", "--config", config, "--turns", 2, "--steps", 3) == 0
        result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        sizes.append((result["rows"], result["fresh"], result["checkpoint_bytes"]))
        assert (result["run_to_fresh"] == result["run_to_bare"]) == (result["rows"] == result["fresh"])
    assert [(rows, fresh) for rows, fresh, _ in sizes] == [(128, 64), (64, 64)]
    assert sizes[0][2] - sizes[1][2] > 64 * 10 * 4  # the last logits, at least


@pytest.mark.parametrize("method", ["ddgsd", "byot"])
def test_bench_of_methods_with_hooks_on_the_network(method, capsys):
    assert distill("bench", "--config", CONFIGS / "digits" / f"{method}.yaml", "--turns", 2, "--steps", 2) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["run_s"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_log_gets_the_mean_of_each_epoch(capsys):
    run = fit("digits/baseline.yaml", "--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 3)
    said = [
        line.split("train/loss ")[1].split()[0] for line in capsys.readouterr().err.splitlines() if "epoch " in line
    ]
    assert said == [f"{value:.4g}" for _, tag, value in rows(run) if tag == "train/epoch_loss"]


def test_a_terminal_shows_a_bar():
    """With loss, validation, and what callbacks show: on a terminal alone, which pipes are not."""
    ours, theirs = os.openpty()
    given = ["fit", "--config", BASE, "--trainer.max_epochs", 2]
    lottery = ["--config", LOTTERY, "--trainer.callbacks.rounds", 1]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(*given, *lottery), stdout=subprocess.PIPE, stderr=theirs, env=env, text=True)
    os.close(theirs)
    seen = b""
    while True:
        try:
            got = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not got:
            break
        seen += got
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0, seen.decode()
    words = seen.decode()
    for shown in ("Epoch 3/3", "train/loss:", "val/accuracy:", "round: 1", "density: 0.8"):
        assert shown in words, words[-3000:]
    assert "run: " in out
