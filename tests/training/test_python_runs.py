"""Runs that are started in Python: equal to those of the command, opened by it, resumed exactly."""

import functools
import queue
import shutil
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from helpers import (
    BRANCHED,
    CLASSES,
    CONFIGS,
    FEATURE_TAUGHT,
    assert_same_run,
    bare_trainer,
    distill,
    fit,
    rows,
    write_pictures,
)
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
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


@pytest.mark.parametrize("name", ["byot", "mr_kd", "ps_kd", "ctkd", "dml", *BRANCHED, *FEATURE_TAUGHT])
def test_a_second_fit_of_a_method_begins_anew(name):
    """What stands beside the network is made anew with it: adapters, branches, heads, a learned temperature."""
    torch.manual_seed(0)
    given = {"teacher": dl.models.ConvNet(10, in_channels=1)} if name in ("ctkd", *FEATURE_TAUGHT) else {}
    given |= {"peers": [dl.models.ConvNet]} if name == "dml" else {"negatives": 16} if name == "crd" else {}
    method = CLASSES[name](dl.models.ConvNet, optimizer=sgd(lr=0.01), **given)
    weights = []
    for number in range(2):
        trainer = quick(max_epochs=1, name=f"run-{number}", limit_train_batches=3, limit_val_batches=1)
        trainer.fit(method, digits())
        weights.append({key: value.clone() for key, value in method.state_dict().items()})
    assert weights[0].keys() == weights[1].keys()
    assert all(value.equal(weights[1][key]) for key, value in weights[0].items())


@pytest.mark.parametrize("name", ["byot", "ps_kd"])
def test_a_ready_network_is_fitted_to_other_data(name, tmp_path):
    """Its method's heads are for pictures of one shape; a table of predictions is made anew."""
    ready = CLASSES[name](dl.models.ConvNet(10, in_channels=3), optimizer=sgd(lr=0.01))
    sizes = (8, 8) if name == "ps_kd" else (8, 16)
    folders = [write_pictures(tmp_path / str(n), 10, 9 + 9 * n, size=size) for n, size in enumerate(sizes)]
    first, second = (
        dl.ImageFolder(folder, image_size=size, batch_size=16) for folder, size in zip(folders, sizes, strict=True)
    )
    quick(max_epochs=1, name="first").fit(ready, first)
    if name == "ps_kd":
        quick(max_epochs=1, name="second").fit(ready, second)
        assert len(ready.past_probs) == len(second.training_part.train.source) > len(first.training_part.train.source)
    else:
        with pytest.raises(dl.InputError, match="another shape: make a new one"):
            quick(max_epochs=1, name="second").fit(ready, second)


def test_an_evaluation_sees_the_pictures_as_the_training_did(tmp_path, capsys):
    write_pictures(tmp_path / "a", 3, 24, size=16)
    for part in ("train", "test"):
        shutil.copytree(tmp_path / "a", tmp_path / "dark" / part)
    for file in (tmp_path / "dark").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(file)) // 4).save(file)
    data = dl.ImageFolder(tmp_path / "a", image_size=16, batch_size=16)
    result = quick(max_epochs=3).fit(method := baseline(), data)
    dark = dl.ImageFolder(tmp_path / "dark", image_size=16, batch_size=16)
    capsys.readouterr()
    assert distill("test", result.folder, "--data.root", tmp_path / "dark") == 0
    found = quick().test(method, dark)
    assert f"{found['test/nll']:.4f}" in capsys.readouterr().out
    assert dark.trained_on is None  # the user's data are left as they are
    (trainer := bare_trainer()).test(method, datamodule=dark, verbose=False)
    assert trainer.callback_metrics["test/nll"].item() == pytest.approx(found["test/nll"], rel=1e-5)


def test_runs_of_one_trainer_do_not_share_their_callbacks():
    """EarlyStopping has its count, ModelCheckpoint its folder and its best value, EMA the weights of one network."""
    stop, save = EarlyStopping("val/nll", patience=2), pl.callbacks.ModelCheckpoint(monitor="val/nll")
    trainer = quick(max_epochs=3, callbacks=[stop, save, dl.EMA(decay=0.9)])
    methods = [baseline(), baseline()]
    folders = [trainer.fit(method, digits()).folder for method in methods]
    assert_same_run(*folders)
    files = [{file.name for file in (folder / "checkpoints").iterdir()} for folder in folders]
    assert files[0] == files[1] and len(files[0]) > 2
    assert "test/accuracy_ema" in trainer.test(methods[1], digits())
    assert "test/accuracy_ema" not in trainer.test(methods[0], digits())  # the average is of the other network


def test_a_callback_of_functions_is_the_user_s_own():
    """Its functions may belong to objects that cannot be copied, and are not."""
    notes = queue.Queue()
    callback = pl.callbacks.LambdaCallback(on_train_end=lambda *_: notes.put("end"), setup=notes.put)
    callback.setup = lambda *_, **__: None
    trainer = quick(max_epochs=1, limit_train_batches=1, callbacks=[callback, EarlyStopping("val/nll")])
    for _ in range(2):
        trainer.fit(baseline(), digits())
    assert notes.qsize() == 2


def test_a_logger_is_for_one_run():
    trainer = quick(max_epochs=1, limit_train_batches=2, logger=CSVLogger("csv"))
    trainer.fit(baseline(), digits())
    with pytest.raises(dl.InputError, match="this CSVLogger belongs to the run logs.*a logger of its own"):
        trainer.fit(baseline(), digits())
    logger = CSVLogger("other")
    with pytest.raises(dl.InputError):  # a run that is refused is removed, and its logger is free again
        quick(max_epochs=1, logger=logger, callbacks=[EarlyStopping("nothing")]).fit(baseline(), digits())
    quick(max_epochs=1, limit_train_batches=2, logger=logger).fit(baseline(), digits())


def test_a_run_of_python_loads_from_its_checkpoint():
    folder = quick(max_epochs=1, limit_train_batches=2).fit(method := baseline(), digits()).folder
    loaded = dl.Baseline.load_from_checkpoint(folder / "checkpoints/last.ckpt")
    assert all(value.equal(method.state_dict()[key]) for key, value in loaded.state_dict().items())
    given = dl.Baseline.load_from_checkpoint(
        folder / "checkpoints/last.ckpt", network=dl.models.ConvNet(10, in_channels=1)
    )
    assert given.state_dict().keys() == loaded.state_dict().keys()


class Broken(pl.Callback):
    """Raises an error in a batch, as a GPU does that runs out of memory."""

    def on_test_batch_end(self, trainer, method, outputs, batch, number, *_):
        if number == 1:
            raise RuntimeError("out of memory")

    def on_train_batch_end(self, trainer, method, outputs, batch, number):
        if number == 1:
            raise RuntimeError("out of memory")


@pytest.mark.parametrize("callbacks", [[], [dl.ReestimateBatchNorm(100)]])
def test_an_interrupted_evaluation_leaves_nothing_behind(callbacks):
    quick(max_epochs=1, name="before").fit(method := baseline(), digits(eval_batch_size=64))
    weights = {key: value.clone() for key, value in method.state_dict().items()}
    right = quick(callbacks=callbacks).test(method, digits(eval_batch_size=64))
    with pytest.raises(RuntimeError, match="memory"):
        quick(callbacks=[*callbacks, Broken()]).test(method, digits(eval_batch_size=64))
    assert all(value.equal(weights[key]) for key, value in method.state_dict().items())
    assert quick(callbacks=callbacks).test(method, digits(eval_batch_size=64)) == right


def test_an_interrupted_evaluation_of_an_ensemble_leaves_nothing_behind():
    file = quick(max_epochs=1).fit(baseline(), digits()).folder / "checkpoints/last.ckpt"
    ensemble, data = dl.Ensemble([str(file), str(file)]), digits(eval_batch_size=64)
    (trainer := bare_trainer()).test(ensemble, datamodule=data, verbose=False)
    right = {name: value.item() for name, value in trainer.callback_metrics.items()}
    with pytest.raises(RuntimeError, match="memory"):
        bare_trainer(callbacks=[Broken()]).test(ensemble, datamodule=data, verbose=False)
    (trainer := bare_trainer()).test(ensemble, datamodule=data, verbose=False)
    assert {name: value.item() for name, value in trainer.callback_metrics.items()} == right
    assert "test/disagreement" in right


class OwnData(dl.Digits):
    """Data of a user's own, with any arguments."""

    def __init__(self, *args, **kwargs):
        super().__init__(**kwargs)
        self.args = args


def test_data_of_other_arguments_are_read_as_the_network_was_trained():
    quick(max_epochs=1, limit_train_batches=2).fit(method := baseline(), digits())
    data = OwnData("any", batch_size=64)
    data.eval_batch_size = 32  # set later
    other = data.for_network_of(method.trained_on)
    assert (other.args, other.eval_batch_size, other.part) == (("any",), 32, None) and other is not data
    assert quick().test(method, data)["test/accuracy"] == quick().test(method, digits())["test/accuracy"]


def test_the_checkpoint_that_is_tested_says_how_pictures_are_normalised(tmp_path):
    """Also where the method was fitted on other data before."""
    methods, folders, datas = [], [], []
    for name, factor in (("light", 1), ("dark", 4)):
        write_pictures(tmp_path / name / "train", 3, 24, size=16)
        write_pictures(tmp_path / name / "test", 3, 9, size=16, seed=1)
        for file in (tmp_path / name).rglob("*.png"):
            Image.fromarray(np.asarray(Image.open(file)) // factor).save(file)
        datas.append(dl.ImageFolder(tmp_path / name, image_size=16, batch_size=16))
        methods.append(dl.Baseline(dl.models.ConvNet(3, in_channels=3), optimizer=sgd()))
        folders.append(quick(max_epochs=2).fit(methods[-1], datas[-1]).folder)
    (trainer := bare_trainer()).test(methods[1], datamodule=datas[1], verbose=False)
    right = trainer.callback_metrics["test/nll"].item()
    file = folders[1] / "checkpoints/last.ckpt"
    (trainer := bare_trainer()).test(methods[0], datamodule=datas[1], ckpt_path=file, verbose=False)
    assert trainer.callback_metrics["test/nll"].item() == right


@pytest.mark.parametrize("end", ["whole", "cut"])
@pytest.mark.parametrize("name", ["seed", "fine_tuning"])
def test_a_fit_gives_the_network_back_as_it_was(name, end):
    network, teacher = dl.models.ConvNet(10, in_channels=1), dl.models.ConvNet(10, in_channels=1)
    given = {"fine_tuning": dl.FineTuning(frozen=["0.*"])} if name == "fine_tuning" else {"teacher": teacher}
    method = (dl.Baseline if name == "fine_tuning" else dl.SEED)(network, optimizer=sgd(lr=0.01), **given)
    trainer = quick(max_epochs=1, limit_train_batches=3, callbacks=[Broken()] if end == "cut" else [])
    if end == "cut":
        with pytest.raises(RuntimeError, match="memory"):
            trainer.fit(method, digits())
    else:
        trainer.fit(method, digits())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_teacher_is_the_same_after_a_fit():
    teacher = dl.models.ConvNet(10, in_channels=1)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    for precision in ("bf16-true", "32-true"):
        trainer = quick(max_epochs=1, limit_train_batches=2, precision=precision, name=precision)
        trainer.fit(dl.KD(dl.models.ConvNet, teacher=teacher, optimizer=sgd()), digits())
        assert all(value.equal(before[key]) for key, value in teacher.state_dict().items())
        assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_an_evaluation_refuses_what_the_training_has_seen(tmp_path):
    quick(max_epochs=1).fit(method := baseline(), digits())
    with pytest.raises(dl.InputError, match="was trained on 177 of the 200 validation pictures"):
        quick().validate(method, digits(val_size=200, split_seed=1))
    file = Path("logs/digits/baseline/convnet-seed0/checkpoints/last.ckpt")
    with pytest.raises(dl.InputError, match="was trained on 177 of the 200 validation pictures"):
        fresh = dl.Baseline(dl.models.ConvNet(10, in_channels=1))
        bare_trainer().validate(fresh, datamodule=digits(val_size=200, split_seed=1), ckpt_path=file)
    for trainer in (quick(), bare_trainer()):
        with pytest.raises(dl.InputError, match="the network was trained on other classes"):
            trainer.test(method, dl.ImageFolder(write_pictures(tmp_path / str(id(trainer)), 3, 9, size=8)))


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
