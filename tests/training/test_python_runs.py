"""Runs that are started in Python: equal to those of the command, opened by it, resumed exactly."""

import functools
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from helpers import CONFIGS, assert_same_run, distill, fit, rows
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

import distill_lightning as dl


class OwnNet(nn.Sequential):
    """A network of a user's own, of this module."""

    def __init__(self, num_classes: int, image_size: int, width: int = 8) -> None:
        super().__init__(nn.Flatten(), nn.Linear(image_size**2, width), nn.ReLU(), nn.Linear(width, num_classes))


def sgd(**options):
    return functools.partial(
        torch.optim.SGD, **{"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4} | options
    )


def baseline(network=dl.models.ConvNet, **options):
    return dl.Baseline(network, optimizer=sgd(), schedule=dl.Cosine(), **options)


def digits(**options):
    return dl.Digits(batch_size=64, augment=[dl.RandomCrop(padding=1)], **options)


def quick(**options):
    return dl.Trainer(**{"max_epochs": 2, "log_every_n_steps": 10, "enable_progress_bar": False} | options)


def test_a_run_in_python_is_the_run_of_the_command():
    result = quick(log_dir="python").fit(baseline(), digits())
    folder = fit("digits/baseline.yaml", "--trainer.max_epochs=2")
    assert result.folder == Path("python/digits/baseline/convnet-seed0")
    mine, theirs = (yaml.safe_load((f / "config.yaml").read_text()) for f in (result.folder, folder))
    assert mine.pop("log_dir") == "python"
    theirs.pop("log_dir")
    mine["trainer"].pop("enable_progress_bar"), theirs["trainer"].pop("enable_progress_bar")
    assert mine == theirs
    assert (result.folder / "identity.json").read_text() == (folder / "identity.json").read_text()
    assert_same_run(result.folder, folder)
    ours, others = (torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (result.folder, folder))
    assert ours["hyper_parameters"]["network"] == others["hyper_parameters"]["network"]
    assert result.metrics["test/accuracy"] == {tag: value for _, tag, value in rows(folder)}["test/accuracy"]
    assert f"{result.metrics['test/accuracy']:.4f}" in result._repr_html_()
    lines = str(result).splitlines()
    assert lines[1].startswith("accuracy  ") and lines[-1] == f"run: {result.folder}"


@pytest.mark.parametrize("file", sorted((CONFIGS / "digits").glob("*.yaml")), ids=lambda path: path.stem)
def test_objects_that_the_command_made_describe_themselves_as_the_command_does(file, monkeypatch):
    """What the command has built says the same as its config.yaml, apart from networks and optimizers, which the parser
    makes itself.
    """
    from distill_lightning.cli.command import DistillCommand
    from distill_lightning.specs.describe import Description

    seen = {}
    monkeypatch.setattr(
        DistillCommand,
        "fit",
        lambda self, **_: seen.update(
            options=self.run_config.options,
            method=self.model,
            data=self.data,
            callbacks=self.config_init["fit"].trainer.callbacks,
        ),
    )
    assert distill("fit", "--config", file) == 0
    description = Description()
    options = seen["options"]
    assert description.of(seen["data"], "data") == options["data"]
    made = description.spec(type(seen["method"]), seen["method"].given_arguments, "model")
    given_by_parser = {"network", "optimizer", "peers", "members"}
    own = {k: v for k, v in made["init_args"].items() if k not in given_by_parser}
    assert own == {k: v for k, v in options["model"]["init_args"].items() if k not in given_by_parser}
    specs = [description.of(c, "c") for c in seen["callbacks"]]
    for spec in options["trainer"]["callbacks"] or []:
        assert spec in specs


def test_a_run_of_python_opens_with_every_verb():
    result = quick(max_epochs=1).fit(baseline(), digits())
    file = result.folder / "checkpoints/last.ckpt"
    assert distill("test", "--ckpt_path", file) == 0
    assert distill("validate", "--ckpt_path", file) == 0
    assert distill("predict", "--ckpt_path", file) == 0
    assert distill("inspect", file) == 0
    assert distill("report", "logs", "--out", "page.html") == 0
    assert distill("fit", "--ckpt_path", file) == 0  # finished already
    assert (result.folder / "predictions.csv").is_file()


def test_a_run_of_python_is_killed_and_resumed_exactly():
    whole = quick(name="whole").fit(baseline(), digits())

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 27:
                raise KeyboardInterrupt

    checkpoint = dl.RunCheckpoint(every_n_steps=5)
    with pytest.raises(SystemExit):
        quick(name="cut", checkpoint=checkpoint, callbacks=[Stop()]).fit(baseline(), digits())
    again = quick(name="cut", checkpoint=checkpoint, callbacks=[Stop()])
    with pytest.raises(dl.InputError, match="seed_everything"):
        quick(name="cut", seed=1, callbacks=[Stop()]).fit(baseline(), digits(), ckpt_path="last")
    monkey = Stop.on_train_batch_end
    Stop.on_train_batch_end = lambda *_: None
    try:
        resumed = again.fit(baseline(), digits(), ckpt_path="last")
    finally:
        Stop.on_train_batch_end = monkey
    assert_same_run(whole.folder, resumed.folder)


def test_the_command_says_what_only_python_has(capsys):
    result = quick(max_epochs=1).fit(baseline(OwnNet(10, 8)), digits())
    file = result.folder / "checkpoints/last.ckpt"
    assert distill("test", "--ckpt_path", file) == 2
    assert "--model.network CLASS" in capsys.readouterr().err
    with pytest.raises(dl.InputError, match="network="):
        dl.load(result.folder)
    assert len(dl.load(result.folder, network=OwnNet(10, 8)).predict(torch.rand(3, 8, 8))) == 3

    class Mine(pl.Callback):
        pass

    result = quick(max_epochs=1, callbacks=[Mine()], name="mine").fit(baseline(), digits())
    file = result.folder / "checkpoints/last.ckpt"
    assert distill("test", "--ckpt_path", file) == 0
    assert distill("fit", "--ckpt_path", file) == 2
    assert "go on in Python" in capsys.readouterr().err


def test_networks_by_class_function_partial_and_name():
    for given, name in (
        (OwnNet, "ownnet"),
        (functools.partial(OwnNet, width=4), "ownnet"),
        ("ConvNet", "convnet"),
        ("distill_lightning.models.lenet.LeNet300100", "lenet300100"),
    ):
        method = dl.Baseline(given)
        with pytest.raises(AttributeError):
            method.model  # noqa: B018 - there is none before the data are known
        result = quick(max_epochs=1, limit_train_batches=2).fit(method, digits())
        assert result.folder.name.startswith(name)
        assert method(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(dl.InputError, match="did you mean ResNet20"):
        dl.Baseline("RestNet20")
    with pytest.raises(dl.InputError, match="num_classes is 7, but digits has 10"):
        quick().fit(dl.Baseline(functools.partial(OwnNet, num_classes=7)), digits())
    result = quick(max_epochs=1, limit_train_batches=2).fit(dl.DML(OwnNet, peers=[OwnNet, "ConvNet"]), digits())
    peers = yaml.safe_load((result.folder / "config.yaml").read_text())["model"]["init_args"]["peers"]
    assert [peer["class_path"].rpartition(".")[2] for peer in peers] == ["OwnNet", "ConvNet"]


def test_a_teacher_of_the_method_becomes_the_callback():
    teacher = quick(max_epochs=1).fit(baseline(), digits())
    file = str(teacher.folder / "checkpoints/last.ckpt")
    of_method = quick(max_epochs=1, name="a").fit(dl.KD(dl.models.ConvNet, teacher=Path(file)), digits())
    of_callback = quick(max_epochs=1, name="b", callbacks=[dl.SoftTargets(file)]).fit(
        dl.KD(dl.models.ConvNet), digits()
    )
    assert_same_run(of_method.folder, of_callback.folder)
    by_folder = quick(max_epochs=1, name="c").fit(dl.KD(dl.models.ConvNet, teacher=teacher.folder), digits())
    assert_same_run(of_method.folder, by_folder.folder)
    assert distill("test", "--ckpt_path", by_folder.folder / "checkpoints/last.ckpt") == 0
    assert distill("fit", "--ckpt_path", by_folder.folder / "checkpoints/last.ckpt") == 0
    with pytest.raises(dl.InputError, match="leave one out"):
        quick(callbacks=[dl.SoftTargets(file)]).fit(dl.KD(dl.models.ConvNet, teacher=file), digits())


def test_a_teacher_that_has_diverged_is_refused():
    teacher = dl.models.ConvNet()
    torch.nn.init.constant_(next(teacher.parameters()), float("nan"))
    with pytest.raises(dl.InputError, match="the teacher ConvNet gives logits that are not finite"):
        quick().fit(dl.KD(dl.models.ConvNet, teacher=teacher), digits())


def test_two_fits_of_one_trainer_are_two_equal_runs():
    trainer = quick(max_epochs=1)
    method, data = baseline(), digits()
    first, second = trainer.fit(method, data), trainer.fit(method, data)
    assert first.folder != second.folder
    assert_same_run(first.folder, second.folder)
    assert trainer.test(method, data)["test/accuracy"] == pytest.approx(second.metrics["test/accuracy"])
    assert trainer.validate(method, data)["val/nll"] == pytest.approx(second.metrics["val/nll"])


def test_callbacks_of_lightning_are_described():
    stop = EarlyStopping("val/accuracy", mode="max", min_delta=0.01, patience=1)
    result = quick(max_epochs=30, callbacks=[stop]).fit(baseline(), digits())
    config = yaml.safe_load((result.folder / "config.yaml").read_text())
    assert config["trainer"]["callbacks"][0]["init_args"]["min_delta"] == 0.01
    assert "made_in_python" not in config
    assert distill("fit", "--ckpt_path", result.folder / "checkpoints/last.ckpt") == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quick(max_epochs=None).fit(baseline(), digits()), "max_epochs is None"),
        (lambda: quick(max_steps=5).fit(baseline(), digits()), "max_steps is 5"),
        (lambda: quick(overfit_batches=1).fit(baseline(), digits()), "train_part"),
        (lambda: quick().fit(OwnNet(10, 8), digits()), "method is a OwnNet"),
        (lambda: quick().fit(baseline(), [1]), "data is a list"),
        (lambda: quick(name="..").fit(baseline(), digits()), "name"),
        (lambda: quick().test(baseline(), digits()), "no network yet"),
        (lambda: quick().fit(baseline(), digits(), ckpt_path="last"), "there is no unfinished run"),
        (lambda: dl.Baseline(3), "Baseline.network is 3: it must be a network, a function or a text"),
        (lambda: dl.load("nowhere"), "nowhere"),
    ],
)
def test_wrong_use_is_one_line(call, words):
    with pytest.raises(dl.InputError, match=words) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200
