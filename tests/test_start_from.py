"""A new run that starts from an old one's weights; a run that is extended or branched."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from helpers import CONFIGS, Kill, assert_same_run, distill, fit, load, same

from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.callbacks.start_from import take_up
from distill_lightning.cli.app import resolve
from distill_lightning.errors import InputError
from distill_lightning.runs import RunConfig

assert Lottery
SMALL = ["--trainer.max_epochs", 2, "--data.train_part", 200, "--data.batch_size", 50]
STEM = Path("logs/digits/baseline")


def of(method: str = "baseline") -> list:
    return ["--config", CONFIGS / "digits" / f"{method}.yaml", *SMALL]


def run(method: str, name: str, *more) -> Path:
    assert distill("fit", *of(method), "--name", name, *more) == 0
    return Path("logs/digits") / method / name


def still(*more) -> list:
    """Options with which nothing moves, so that the weights of the start can be seen at the end."""
    return ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.0, "--trainer.max_epochs", 1, *more]


@pytest.mark.parametrize("method", ["baseline", "dml", "byot"])
def test_all_modules_of_the_same_method_are_taken_along(method):
    old = run(method, "old")
    new = run(method, "new", "--start_from", old, *still())
    before, after = load(old)["state_dict"], load(new)["state_dict"]
    fixed = [name for name, _ in before.items() if "running" not in name and "batches" not in name]
    assert all(torch.equal(before[name], after[name]) for name in fixed)


@pytest.mark.parametrize("source", ["dml", "file"])
def test_the_network_alone_is_taken_from_another_method_or_a_file(source):
    old = run("dml", "old")
    weights = {k.removeprefix("model."): v for k, v in load(old)["state_dict"].items() if k.startswith("model.")}
    torch.save(weights, "weights.pt")
    path = old / "checkpoints" / "best.ckpt" if source == "dml" else "weights.pt"
    if source == "dml":
        weights = {k.removeprefix("model."): v for k, v in load(old, "best")["state_dict"].items() if "model." in k}
    new = run("baseline", "new", "--start_from", path, *still())
    after = load(new)["state_dict"]
    assert all(torch.equal(v, after[f"model.{k}"]) for k, v in weights.items() if k.endswith("weight"))
    assert RunConfig.read(new).lineage["path"] == str(path)


def test_the_optimizer_goes_on_where_it_was():
    """Two epochs at a constant rate, and two more in a new run, of the order of samples of the first two."""
    old = run("baseline", "old", "--model.schedule", "Constant")
    new = run("baseline", "new", "--model.schedule", "Constant", "--start_from", old, "--start_optimizer", "true")
    cold = run("baseline", "cold", "--model.schedule", "Constant", "--start_from", old)
    assert not same(load(new)["state_dict"], load(cold)["state_dict"])
    still_there = run("baseline", "still", *still("--model.optimizer.momentum", 0.9), "--start_from", old)
    assert load(still_there)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.0


def test_a_branch_is_resumed_exactly_without_the_old_run(monkeypatch):
    old = run("baseline", "old")
    more = ["--start_from", old, "--start_optimizer", "true", "--model.optimizer.lr", 0.05]
    whole = run("baseline", "whole", *more)
    with monkeypatch.context() as patch:
        Kill(patch, "on_train_batch_start", 6)
        assert distill("fit", *of(), "--name", "killed", *more) == 1
    shutil.rmtree(old)
    assert distill("fit", *of(), "--name", "killed", *more, "--ckpt_path", "last") == 0
    assert_same_run(whole, STEM / "killed")
    assert load(whole)["optimizer_states"][0]["param_groups"][0]["initial_lr"] == 0.05


def test_lineage_and_identity():
    """The digest of the weights is in config.yaml; what the run starts from is in its id."""
    old = run("baseline", "old")
    new = run("baseline", "new", "--start_from", old)
    config = yaml.safe_load((new / "config.yaml").read_text())
    identity = json.loads((old / "identity.json").read_text())["id"]
    assert config["start_from"]["path"] == str(old)
    assert config["start_from"]["run"] == f"digits/{identity}/last.ckpt"
    assert len(config["start_from"]["weights"]) == 20
    other = run("baseline", "other", "--start_from", old / "checkpoints" / "best.ckpt")
    ids = [RunConfig.read(folder).id() for folder in (old, new, other)]
    assert len(set(ids)) == 3
    # a study plans with the path alone, and must know the run again
    plan = resolve([str(word) for word in ("fit", *of(), "--start_from", old / "checkpoints" / "last.ckpt")])
    assert plan.config.id() == ids[1]


def test_a_study_trains_the_run_that_another_starts_from():
    options = {"trainer.max_epochs": 1, "data.train_part": 200, "data.batch_size": 50}
    runs = {
        "long": {"config": "digits/baseline", "options": {"start_from": "${first}", "start_optimizer": True}},
        "first": {"config": "digits/baseline", "options": {"model.optimizer.init_args.lr": 0.05}},
    }
    Path("study.yaml").write_text(yaml.safe_dump({"runs": runs, "options": options}))
    assert distill("study", "study.yaml") == 0
    (new,) = STEM.glob("long-*")
    assert RunConfig.read(new).lineage["run"].endswith("last.ckpt")
    stamp = (new / "summary.json").stat().st_mtime_ns
    assert distill("study", "study.yaml") == 0
    assert (new / "summary.json").stat().st_mtime_ns == stamp


def test_what_does_not_fit_is_refused_in_one_line(capsys):
    old = run("baseline", "old")
    torch.save({k.removeprefix("model."): v for k, v in load(old)["state_dict"].items()}, "plain.pt")
    adam = ["--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", 0.01]
    with_optimizer = ["--start_optimizer", "true"]
    cases = [
        (["--start_from", "nowhere"], "there is no checkpoint or file of weights nowhere"),
        (["--start_from", old, "--model.network.width", 9], "does not fit this ConvNet"),
        (["--start_from", old, *adam, *with_optimizer], "another optimizer than Adam"),
        (["--start_from", "plain.pt", *with_optimizer], "holds no state of an optimizer"),
        (with_optimizer, "give start_from too"),
    ]
    for more, words in cases:
        capsys.readouterr()
        assert distill("fit", *of(), "--name", "new", *more) == 2, more
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1 and len(err) < 250
        assert not (STEM / "new").exists()


@pytest.mark.parametrize("more", [["--trainer.max_epochs", 4], ["--model.optimizer.lr", 0.05]])
def test_a_resume_with_other_options_says_how_to_start_from_the_run(more, capsys):
    old = run("baseline", "old")
    assert distill("fit", *of(), "--name", "old", "--ckpt_path", "last", *more) == 2
    assert f"or give --start_from {old} for a new run" in capsys.readouterr().err


def test_changed_weights_are_noticed(capsys):
    old = run("baseline", "old")
    new = run("baseline", "new", "--start_from", old)
    shutil.copy(run("baseline", "other", "--seed_everything", 1) / "checkpoints/last.ckpt", old / "checkpoints")
    assert distill("fit", "--config", new / "config.yaml", "--name", "again") == 2
    assert "give the old file, or only its path" in capsys.readouterr().err


def test_an_optimizer_of_other_shapes_is_refused():
    def sgd(*shape: int) -> torch.optim.SGD:
        parameter = torch.ones(shape, requires_grad=True)
        parameter.sum().backward()
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
        optimizer.step()
        return optimizer

    with pytest.raises(InputError, match="of shape"):
        take_up(sgd(3), sgd(2).state_dict(), "x.ckpt")
    with pytest.raises(InputError, match=r"an optimizer of \[1\] parameters"):
        take_up(torch.optim.SGD([torch.ones(1), torch.ones(2)], lr=0.1), sgd(2).state_dict(), "x.ckpt")


def test_a_lottery_prunes_what_it_starts_from():
    old = run("baseline", "old")
    more = ["--trainer.callbacks", "Lottery", "--trainer.callbacks.rounds", 1, "--trainer.max_epochs", 1]
    new = fit("digits/baseline.yaml", *SMALL, "--start_from", old, *more)
    ticket = torch.load(new / "ticket.pt", weights_only=True)
    before = load(old)["state_dict"]
    assert all(torch.equal(before[f"model.{k}"], v) for k, v in ticket["weights"].items())
