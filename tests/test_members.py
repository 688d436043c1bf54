"""Runs that are trained side by side: each equals the run alone, in double precision to the last digits."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers import Kill, distill, load, rows, start
from torch import nn

from distill_lightning.cli import members
from distill_lightning.cli.members import _tell
from distill_lightning.errors import InputError
from distill_lightning.members import ProcessState
from distill_lightning.members.stacked import StackedNetworks
from distill_lightning.members.turns import Turns
from distill_lightning.models import ConvNet, FullyConnected, ResNet8
from distill_lightning.tensor_files import write_tensors
from distill_lightning.training.result import Result

DOUBLE = ("--trainer.precision", "64-true", "--trainer.max_epochs", "2", "--doctor", "false")
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9, "nesterov": True}}
ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.003}}
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003, "weight_decay": 0.05}}
WAYS = {
    "ResNet-8, SGD, cosine": {"model.network": "ResNet8", "model.schedule": "Cosine", "model.optimizer": SGD},
    "dropout, Adam": {"model.network.dropout": 0.4, "model.optimizer": ADAM},
    "two layers of dropout, AdamW, accumulated": {"model.network": "FullyConnected", "model.network.dropout": 0.3}
    | {"model.optimizer": ADAMW, "trainer.accumulate_grad_batches": 2},
    "DLB, clipped": {"config": "digits/dlb", "trainer.gradient_clip_val": 0.5},
    "PS-KD, channels last": {"config": "digits/ps_kd", "model.channels_last": True},
    "averaged weights": {"trainer.callbacks+": "EMA"},
}


def as_options(given: dict[str, object]) -> list[str]:
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in given.items()]


def assert_nearly_same(a: Path, b: Path, tolerance: float = 1e-10) -> None:
    """Equal weights, statistics of batch norm, states of the optimizer, and numbers that were logged."""
    first, second = load(a), load(b)
    for part in ("state_dict", "optimizer_states", "method", "callbacks"):
        mine, theirs = numbers_in(first[part]), numbers_in(second[part])
        assert mine.keys() == theirs.keys()
        for place, tensor in mine.items():
            if "elapsed_s" not in place and "samples" not in place:
                torch.testing.assert_close(tensor, theirs[place], rtol=tolerance, atol=tolerance)
    assert [row[:2] for row in rows(a)] == [row[:2] for row in rows(b)]
    assert [row[2] for row in rows(a)] == pytest.approx([row[2] for row in rows(b)], rel=1e-6, abs=1e-6)


def numbers_in(tree: object, place: str = "") -> dict[str, torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return {place: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return {name: one for key, inner in items for name, one in numbers_in(inner, f"{place}/{key}").items()}


@pytest.mark.parametrize("way", WAYS)
def test_each_member_equals_the_run_alone(way):
    options = {"config": "digits/baseline"} | WAYS[way]
    config, given = options["config"], [*as_options(options), *DOUBLE]
    assert distill("members", "--seeds", "3,8", *given, "--name", "m", "--log_dir", "together") == 0
    for seed in (3, 8):
        alone = ["--seed_everything", seed, "--name", f"m-seed{seed}", "--log_dir", "alone"]
        assert distill("fit", *given, *alone) == 0
    for seed in (3, 8):
        assert_nearly_same(Path("together", config, f"m-seed{seed}"), Path("alone", config, f"m-seed{seed}"))
    sizes = [Path(where, config, "m-seed3/checkpoints/last.ckpt").stat().st_size for where in ("together", "alone")]
    assert sizes[0] < 1.1 * sizes[1]  # not the stack of both


def test_members_may_differ_in_rates_and_in_length_and_one_may_fail(monkeypatch):
    """Member 0 dies at its third epoch, member 2 ends before the others. Member 0 then goes on alone."""
    members = [
        {"name": "slow", "model.optimizer.lr": 0.01, "trainer.max_epochs": 4},
        {"name": "fast", "model.optimizer.lr": 0.2, "trainer.max_epochs": 4},
        {"name": "short", "model.optimizer.lr": 0.1, "trainer.max_epochs": 1, "seed_everything": 7},
    ]
    Path("members.yaml").write_text(yaml.safe_dump(members))
    given = ["--config", "digits/baseline", "--trainer.precision", "64-true", "--doctor", "false"]
    with monkeypatch.context() as patch:
        Kill(patch, "on_train_epoch_start", 3)  # the progress of member 0 is shown
        assert distill("members", "--runs", "members.yaml", *given) == 1
    folder = Path("logs/digits/baseline")
    assert not (folder / "slow/summary.json").exists()
    own = as_options(members[0])
    assert distill("fit", *given, *own, "--ckpt_path", "last") == 0
    for one in members:
        own = as_options(one)
        assert distill("fit", *given, *own, "--log_dir", "alone") == 0
        # a rate of 0.2 lets the last digits grow
        assert_nearly_same(folder / one["name"], Path("alone/digits/baseline") / one["name"], tolerance=1e-6)


def test_members_may_have_other_frozen_parts():
    """Their steps are computed one by one while the modes of their modules differ."""
    frozen = {"name": "frozen", "model.fine_tuning": {"head_first": 1}}
    Path("members.yaml").write_text(yaml.safe_dump([{"name": "free", "seed_everything": 4}, frozen]))
    given = ["--config", "digits/baseline", *DOUBLE]
    assert distill("members", "--runs", "members.yaml", *given) == 0
    for options in (["--name=free", "--seed_everything=4"], as_options(frozen)):
        assert distill("fit", *given, *options, "--log_dir", "alone") == 0
    for name in ("free", "frozen"):
        assert_nearly_same(Path("logs/digits/baseline", name), Path("alone/digits/baseline", name))


def test_a_tensor_that_is_part_of_a_stack_is_written_alone():
    stack = torch.randn(50, 1000)
    write_tensors("a.pt", {"kind": "x", "weights": stack[3], "more": [stack[4], (stack,)]})
    write_tensors("b.pt", {"kind": "x", "weights": stack[3].clone(), "more": [stack[4].clone(), (stack,)]})
    assert Path("a.pt").stat().st_size == Path("b.pt").stat().st_size
    assert torch.equal(torch.load("a.pt")["weights"], stack[3])


def test_members_that_end_with_an_error_do_not_hide_the_others(capsys):
    done = Result(Path("logs/x/a"), {"test/accuracy": 0.5})
    assert _tell(["member 0", "member 1"], [InputError("picture 7 is damaged"), done], "") == 1
    out, err = capsys.readouterr()
    assert "member 1: logs/x/a" in out and err == "distill: member 0: picture 7 is damaged\n"
    with pytest.raises(InputError, match="no such"):
        _tell(["member 0", "member 1"], [InputError("no such thing")] * 2, "")


def test_members_take_one_device_if_none_is_given(monkeypatch):
    """A machine with two GPUs would give both."""
    asked = []

    def build(options):
        asked.append(options)
        raise InputError("far enough")

    for more in ([], ["--trainer.devices", "2"]):
        with pytest.raises(InputError, match="far enough"):
            members.main(["--seeds", "2", "--config", "digits/baseline", *more], build, lambda _: None)
    assert [" ".join(options).count("--trainer.devices 1") for options in asked] == [1, 1]
    assert asked[1].index("2") > asked[1].index("1")


def test_a_signal_reaches_all_members_and_they_go_on(tmp_path):
    options = ["--config", "digits/baseline", "--trainer.max_epochs", "40", "--doctor", "false"]
    given = [*options, "--seeds", "2", "--name", "m"]
    process = start("members", *given)
    folders = [tmp_path / "logs/digits/baseline" / f"m-seed{seed}" for seed in (0, 1)]
    deadline = time.monotonic() + 120
    while not all((folder / "checkpoints/last.ckpt").exists() for folder in folders):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert [load(folder)["epoch"] < 39 for folder in folders] == [True, True]
    assert err.count("the same command goes on with --ckpt_path last") == 1
    assert distill("members", *given, "--ckpt_path", "last") == 0
    assert distill("members", *given, "--ckpt_path", "auto") == 0  # finished: nothing is done
    for seed, folder in enumerate(folders):
        assert distill("fit", *options, "--seed_everything", seed, "--name", f"a{seed}") == 0
        assert [row[:2] for row in rows(folder)] == [row[:2] for row in rows(folder.parent / f"a{seed}")]


STUDY = """
for: {seed: 2}
options: {trainer.max_epochs: 1, trainer.precision: 64-true, trainer.enable_progress_bar: false}
runs:
  teacher: {config: digits/baseline}
  student: {config: digits/kd, options: {trainer.callbacks.teacher: "${teacher}"}}
tables: []
"""


def test_the_runs_of_a_study_are_trained_side_by_side_and_found_by_the_study(capsys):
    Path("s.yaml").write_text(STUDY)
    given = ("members", "--study", "s.yaml", "--entry")
    assert distill(*given, "student") == 2
    assert "student needs teacher" in capsys.readouterr().err
    assert distill(*given, "pupil") == 2
    assert "has no entry pupil" in capsys.readouterr().err
    assert distill(*given, "teacher") == 0
    assert distill(*given, "student") == 0
    assert distill(*given, "student") == 2
    assert "0 runs that are not finished" in capsys.readouterr().err
    assert distill("study", "s.yaml") == 0
    assert "4 of 4 runs done" in capsys.readouterr().out
    assert distill("study", "s.yaml", "--log_dir", "alone") == 0
    for run in Path("logs/digits").glob("*/*-seed*"):
        assert_nearly_same(run, Path("alone/digits") / run.relative_to("logs/digits"))


REFUSED = {
    "no seeds": ([], "needs --seeds N, --runs FILE or --study STUDY"),
    "no entry": (["--study", "quick"], "--study and --entry belong together"),
    "one seed": (["--seeds", "1"], "two different seeds"),
    "a word": (["--seeds", "ten"], "--seeds is ten"),
    "no list": (["--runs", "one.yaml"], "a list of two members"),
    "other widths": (["--runs", "widths.yaml"], "members 0 and 1 have unlike networks"),
    "precisions": (["--runs", "precisions.yaml"], "one trainer.precision"),
    "compiled": (["--seeds", "2", "--model.compile", "true"], "model.compile is for one network"),
    "draws": (["--seeds=2", "--model.network={class_path: CIFARResNet, init_args: {depth: 8, stochastic_depth: 0.3}}"],
              "CIFARResNet cannot be trained side by side: it draws random numbers"),
    "features": (["--seeds", "2", "--model", "BYOT", "--model.network", "ConvNet"], "inside its network"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_side_by_side_is_refused(case, capsys):
    Path("widths.yaml").write_text("[{model.network.width: 4}, {model.network.width: 8}]")
    Path("precisions.yaml").write_text("[{trainer.precision: 32}, {trainer.precision: 64}]")
    Path("one.yaml").write_text("{seed_everything: 3}")
    options, words = REFUSED[case]
    assert distill("members", "--config", "digits/baseline", "--trainer.max_epochs", "1", *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("distill: ") and words in error and len(error) < 200
    assert not list(Path().glob("logs/*/*/*/checkpoints/*.ckpt"))


# The parts


def test_turns_run_one_at_a_time_and_keep_their_draws():
    """Three jobs draw numbers and meet; each draws what it would draw alone, and the order is that of their numbers."""
    seen = []

    def job(number: int) -> list[float]:
        torch.manual_seed(number)
        os.environ["PL_GLOBAL_SEED"] = str(number)
        drawn = []
        for turn in range(3):
            drawn.append(torch.rand(1).item())
            seen.append((turn, number))
            assert turns.meet(number, number) == 10 * number
            assert os.environ["PL_GLOBAL_SEED"] == str(number)
        return drawn

    os.environ.pop("PL_GLOBAL_SEED", None)
    turns = Turns([ProcessState()] * 3, lambda asked: {number: 10 * one for number, one in asked.items()})
    outcomes = turns.run([lambda n=n: job(n) for n in range(3)])
    for number in range(3):
        torch.manual_seed(number)
        assert outcomes[number] == [torch.rand(1).item() for _ in range(3)]
    assert seen == [(turn, number) for turn in range(3) for number in range(3)]
    assert "PL_GLOBAL_SEED" not in os.environ


def test_a_waiting_job_serves_and_not_one_that_has_ended():
    """What belongs to a thread, such as autocast, is then as in the jobs' own steps."""
    served = []
    turns = Turns(
        [ProcessState()] * 3, lambda asked: served.append(torch.is_autocast_enabled("cpu")) or dict.fromkeys(asked)
    )

    def job(number: int, times: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            for _ in range(times):
                turns.meet(number, None)

    assert turns.run([lambda: job(0, 3), lambda: job(1, 2), lambda: job(2, 1)]) == [None] * 3
    assert served == [True] * 3


def test_an_error_in_a_meeting_reaches_all_who_wait_and_one_that_ends_holds_up_nobody():
    def serve(asked):
        if 0 not in asked:
            return asked
        raise ValueError("not today")

    turns = Turns([ProcessState()] * 3, serve)
    first, second, third = turns.run([lambda: turns.meet(0, "a"), lambda: turns.meet(1, "b"), lambda: 5])
    assert str(first) == str(second) == "not today" and third == 5
    turns = Turns([ProcessState()] * 2, serve)
    assert turns.run([lambda: 1, lambda: turns.meet(1, "b")]) == [1, "b"]


def with_dropout() -> FullyConnected:
    return FullyConnected(image_size=8, dropout=0.5)


@pytest.mark.parametrize("make", [ResNet8, lambda: ConvNet(dropout=0.5), with_dropout])
def test_a_stack_computes_what_its_networks_compute(make):
    """Logits, gradients, statistics of batch norm, and noise of dropout."""
    torch.manual_seed(0)
    channels = 3 if make is ResNet8 else 1
    networks = [make().double() for _ in range(3)]
    alone = [make().double() for _ in range(3)]
    for one, other in zip(alone, networks, strict=True):
        one.load_state_dict(other.state_dict())
    images = torch.randn(3, 5, channels, 8, 8, dtype=torch.float64)
    stack, noises = StackedNetworks(networks), []
    modes = tuple(module.training for module in networks[0].modules())
    for number in range(3):
        torch.manual_seed(number)
        noises.append(stack.draw_noise(images[number], modes))
    logits = stack.forward(images, noises, modes)
    logits.square().sum().backward()
    stack.take_gradients()
    for number, network in enumerate(alone):
        torch.manual_seed(number)
        expected = network(images[number])
        expected.square().sum().backward()
        torch.testing.assert_close(logits[number], expected, rtol=1e-12, atol=1e-12)
        for one, other in zip(network.parameters(), networks[number].parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-10)
        for one, other in zip(network.buffers(), networks[number].buffers(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_frozen_network_gets_no_gradient_and_unlike_ones_are_refused():
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)) for _ in range(2)]
    for network in networks:
        network[1].requires_grad_(False)
    stack = StackedNetworks(networks)
    stack.forward(torch.randn(2, 5, 1, 2, 2), [[], []], (True,) * 4).sum().backward()
    stack.take_gradients()
    assert networks[0][1].weight.grad is None and networks[0][2].weight.grad is not None
    with pytest.raises(InputError, match=r"unlike networks, at \(1\)"):
        StackedNetworks([networks[0], nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 2))])
