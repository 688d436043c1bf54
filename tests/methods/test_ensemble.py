"""Ensembles: their average, their metrics, and which options of evaluation may change."""

import csv
import itertools
import json
from pathlib import Path

import pytest
import torch
from helpers import bare_trainer, distill, fit, run_on
from torch.nn.functional import cross_entropy

from distill_lightning.checkpoints import PlainNetwork, open_network
from distill_lightning.data.digits import Digits
from distill_lightning.diversity import temperature_of, temperature_sums
from distill_lightning.errors import InputError
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.ensemble import Ensemble
from distill_lightning.models.convnet import ConvNet


def network(seed: int) -> ConvNet:
    torch.manual_seed(seed)
    return ConvNet(width=4)


def evaluated(method, **data) -> tuple[dict[str, float], Digits]:
    data = Digits(eval_batch_size=100, **data)
    trainer = bare_trainer()
    trainer.test(method, datamodule=data, verbose=False)
    return {k: float(v) for k, v in trainer.callback_metrics.items()}, data


def by_hand(data: Digits, seeds: list[int]) -> torch.Tensor:
    images = data.normaliser(data.test.source.images)
    with torch.no_grad():
        return torch.stack([network(seed).eval()(images) for seed in seeds])


@pytest.mark.parametrize("average", ["logits", "probs"])
def test_it_is_the_average(average):
    method = Ensemble([PlainNetwork(network(seed)) for seed in range(3)], average)
    metrics, data = evaluated(method)
    logits = by_hand(data, [0, 1, 2])
    mean = logits.mean(0) if average == "logits" else logits.softmax(2).mean(0).log()
    labels = data.test.labels
    assert metrics["test/accuracy"] == pytest.approx(float((mean.argmax(1) == labels).double().mean()), abs=1e-6)
    assert metrics["test/nll"] == pytest.approx(float(cross_entropy(mean, labels)), rel=1e-4)


def test_it_tells_how_members_differ():
    method = Ensemble([PlainNetwork(network(seed)) for seed in range(4)])
    written = {}
    method.log_metrics = lambda stage, metrics, step: written.update({(stage, k, step): v for k, v in metrics.items()})
    _, data = evaluated(method)
    logits, labels = by_hand(data, [0, 1, 2, 3]), data.test.labels
    predicted = logits.argmax(2)
    pairs = [(predicted[a] != predicted[b]).double().mean() for a, b in itertools.combinations(range(4), 2)]
    assert written["test", "disagreement", 0] == pytest.approx(float(sum(pairs) / 6))
    assert written["test", "member_accuracy", 0] == pytest.approx(float((predicted == labels).double().mean()))
    for count in range(1, 5):
        right = float((logits[:count].mean(0).argmax(1) == labels).double().mean())
        assert written["test", "accuracy_by_members", count] == pytest.approx(right)


def test_the_temperature_is_that_of_the_validation_split_alone():
    method, data = Ensemble([PlainNetwork(network(seed)) for seed in range(3)]), Digits(eval_batch_size=100)
    trainer = bare_trainer()
    trainer.validate(method, datamodule=data, verbose=False)
    trainer.test(method, datamodule=data, verbose=False)
    tested = {k: float(v) for k, v in trainer.callback_metrics.items()}
    logits = by_hand(data, [0, 1, 2]).mean(0)
    images = data.normaliser(data.val.source.images[data.val.taken])
    with torch.no_grad():
        of_val = torch.stack([network(seed).eval()(images) for seed in range(3)]).mean(0)
    expected = temperature_of(temperature_sums(of_val, data.val.labels[data.val.taken]))
    assert tested["test/temperature"] == pytest.approx(expected, rel=1e-5)
    nll = float(cross_entropy(logits / expected, data.test.labels))
    assert tested["test/nll_calibrated"] == pytest.approx(nll, rel=1e-4)
    alone, _ = evaluated(Ensemble([PlainNetwork(network(0))]))
    assert "test/temperature" not in alone and "test/ece_calibrated" not in alone  # there was no validation


def test_one_member_is_itself_and_agrees_with_itself():
    method = Ensemble([PlainNetwork(network(5))])
    written = {}
    method.log_metrics = lambda stage, metrics, step: written.update(metrics)
    alone, data = evaluated(method)
    logits = by_hand(data, [5])[0]
    assert alone["test/nll"] == pytest.approx(float(cross_entropy(logits, data.test.labels)), rel=1e-4)
    assert written["disagreement"] == 0
    assert written["accuracy_by_members"] == written["member_accuracy"] == pytest.approx(alone["test/accuracy"])


@pytest.mark.parametrize("kind", ["ensemble", "baseline"])
def test_a_class_bias_acts_in_evaluation_alone(kind):
    options = {"class_bias": {"3": 2.5, 4: -1.0}}
    method = (
        Ensemble([PlainNetwork(network(1))], **options)
        if kind == "ensemble"
        else Baseline(network(1).eval(), **options)
    )
    metrics, data = evaluated(method)
    logits = by_hand(data, [1])[0]
    bias = torch.zeros(10)
    bias[3], bias[4] = 2.5, -1.0
    assert metrics["test/nll"] == pytest.approx(float(cross_entropy(logits + bias, data.test.labels)), rel=1e-4)
    assert not any("bias" in key and "model." not in key for key in method.state_dict())
    with pytest.raises(InputError, match="no class 11"):
        evaluated(Baseline(network(1), class_bias={"11": 1.0}))


def test_an_empty_list_and_a_missing_member_are_refused():
    with pytest.raises(InputError, match="empty list"):
        Ensemble([])
    with pytest.raises(InputError, match="there is no member nowhere.ckpt"):
        evaluated(Ensemble(["nowhere.ckpt"]))


@pytest.fixture
def members() -> list[str]:
    given = ["--trainer.max_epochs", 2, "--data.train_part", 320]
    runs = [fit("digits/baseline.yaml", *given, "--seed_everything", seed) for seed in range(2)]
    return [str(run / "checkpoints" / "last.ckpt") for run in runs]


def test_the_command(members, capsys):
    """A run folder like any other; finished once; validates, predicts, teaches."""
    given = ["--model", "Ensemble", "--model.members", json.dumps(members), "--data", "Digits", "--name", "both"]
    assert distill("fit", *given, "--ckpt_path", "auto") == 0
    run = Path("logs/digits/ensemble/both")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["parameters"] == 2 * sum(p.numel() for p in open_network(members[0]).parameters())
    assert sum(summary["calibration"]["count"]) == 360
    metrics = summary["metrics"]
    assert {"test/disagreement", "test/member_accuracy", "test/error_correlation", "val/accuracy"} <= metrics.keys()
    assert "val/temperature" not in metrics and metrics["test/nll_calibrated"] < metrics["test/nll"]
    capsys.readouterr()
    assert distill("fit", *given, "--ckpt_path", "auto") == 0
    assert "finished already" in capsys.readouterr().out
    assert distill("validate", *given) == 0
    assert distill("predict", *given) == 0
    rows = list(csv.DictReader((run / "predictions.csv").open()))
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / 360 == pytest.approx(summary["metrics"]["test/accuracy"], abs=1e-6)
    data = Digits()
    data.setup("test")
    images = data.normaliser(data.test.source.images)
    with torch.no_grad():
        probs = sum(open_network(path)(images) for path in members).div(2).softmax(1)
    assert [float(rows[0][f"prob_{k}"]) for k in range(10)] == pytest.approx(probs[0].tolist(), rel=1e-3, abs=1e-6)


def test_two_processes_count_as_one(members):
    given = [
        "--model",
        "Ensemble",
        "--model.members",
        json.dumps(members),
        "--data",
        "Digits",
        "--data.eval_batch_size",
    ]
    for devices in (1, 2):
        run_on(devices, "fit", *given, 70, "--name", f"on-{devices}")
    one, two = (json.loads(Path(f"logs/digits/ensemble/on-{n}/summary.json").read_text()) for n in (1, 2))
    assert one["metrics"].keys() == two["metrics"].keys()
    for tag, value in one["metrics"].items():
        assert two["metrics"][tag] == pytest.approx(value, rel=1e-5), tag
    assert one["calibration"]["count"] == two["calibration"]["count"]
