"""What the doctor says: of the runs whose illness is known, of siblings, and at the end of a fit."""

import collections
import csv
import dataclasses
import gzip
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import fit

from distill_lightning.doctor import Curves, Series, diagnose, picture
from distill_lightning.doctor.measures import measure
from distill_lightning.doctor.rules import RULES
from distill_lightning.doctor.siblings import compared
from distill_lightning.doctor.tags import curves_of
from distill_lightning.doctor.words import TITLES

CURVES = Path(__file__).parent / "curves.csv.gz"
PAGE = Path(__file__).parents[2] / "docs" / "explanations" / "doctor.md"
HIGH, LOW = {"lr_too_high", "diverged"}, {"lr_too_low"}


@pytest.fixture(scope="module")
def known() -> dict[str, list[tuple[list[str], Curves]]]:
    """The runs whose illness is known, by half: the illness, a second one if two hold, and the curves of each."""
    of_runs: dict[str, dict] = {}
    with gzip.open(CURVES, "rt", newline="") as file:
        for row in csv.DictReader(file):
            tags = of_runs.setdefault(row["run"], {})
            if row["tag"] == "meta":
                tags["meta"] = json.loads(row["value"])
            else:
                tags.setdefault(row["tag"], []).append((float(row["step"]), float(row["value"])))
    halves: dict[str, list[tuple[list[str], Curves]]] = {}
    for name, tags in of_runs.items():
        meta = tags.pop("meta")
        series = curves_of({tag: Series.of(points) for tag, points in tags.items()})
        facts = {key: meta[key] for key in ("num_classes", "batch_size", "smoothing", "mixed", "augmented")}
        truth = [meta["illness"], *([meta["also"]] if "also" in meta else [])]
        halves.setdefault(meta["half"], []).append((truth, Curves(name, **series, **facts)))
    return halves


def counts(runs: list[tuple[list[str], Curves]]) -> list[int]:
    """The number of runs, and how many are right, unsure, contrary, and called ill though they are healthy."""
    found = [(truth, diagnose(curves).verdict) for truth, curves in runs]
    return [
        len(found),
        sum(verdict in truth for truth, verdict in found),
        sum(verdict == "unsure" for _, verdict in found),
        sum((t[0] in HIGH and v in LOW) or (t[0] in LOW and v in HIGH) for t, v in found),
        sum(t == ["healthy"] and v not in ("healthy", "unsure") for t, v in found),
    ]


def test_the_counts_are_those_of_the_page(known):
    rows = re.findall(
        r"^\| (calibration|held out|the program's own) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|",
        PAGE.read_text(),
        re.M,
    )
    assert {row[0]: list(map(int, row[1:])) for row in rows} == {half: counts(runs) for half, runs in known.items()}


def test_the_confusion_table_is_that_of_the_page(known):
    said = {half: collections.Counter((t[0], diagnose(c).verdict) for t, c in runs) for half, runs in known.items()}
    for illness in {truth for found in said.values() for truth, _ in found}:
        cells = [
            ", ".join(f"{verdict} {n}" for (truth, verdict), n in sorted(found.items()) if truth == illness)
            for found in said.values()
        ]
        assert f"| {illness} | {' | '.join(cells)} |" in PAGE.read_text(), cells


def test_every_sentence_can_be_said_and_drawn(known):
    """Every rule that decides somewhere gives a sentence with its numbers, and a place on a curve."""
    for _, curves in itertools.chain(*known.values()):
        found = diagnose(curves)
        assert found.verdict in TITLES and not re.search(r"\bnan\b|\binf\b|unknown", found.line.lower()), found
        plot = picture(curves, found)
        assert found.verdict == "unsure" or plot.lines[-1].label == "what the sentence is about"
    assert {rule.verdict for rule in RULES} | {"unsure"} == TITLES.keys()


def test_noise_of_a_few_percent_changes_few_verdicts(known):
    runs = known["calibration"]
    noise = np.random.default_rng(0)
    changed = 0
    for _, curves in runs:
        loss = Series(curves.loss.steps, curves.loss.values * (1 + 0.01 * noise.standard_normal(len(curves.loss))))
        other = Curves(**{**vars(curves), "loss": loss})
        changed += diagnose(other).verdict != diagnose(curves).verdict
    assert changed <= 0.15 * len(runs)


def test_a_second_illness_is_named(known):
    (labels,) = [curves for _, curves in known["calibration"] if curves.file == "noise:12-0"]
    found = diagnose(labels)
    assert found.verdict == "wrong_labels" and "Besides, the network overfits." in found.evidence


def test_without_accuracies_nothing_unknown_is_said(known):
    for _, curves in known["calibration"][::3]:
        alone = diagnose(Curves("alone", curves.loss, num_classes=curves.num_classes, batch_size=curves.batch_size))
        assert not re.search(r"\bnan\b|unknown", alone.line.lower()), alone.line


def test_a_network_that_lost_all_gets_a_tenth_of_the_rate():
    steps = np.arange(1.0, 101.0)
    rises = Series(steps, np.where(steps < 20, 2.3, np.where(steps < 30, 4.0, 2.3)))
    lost = Curves("lost", rises, num_classes=10, settings={"model.optimizer.lr": 1.0})
    half = dataclasses.replace(lost, loss=Series(steps, np.where(steps < 30, rises.values, 1.5)))
    assert [diagnose(one).verdict for one in (lost, half)] == ["lr_too_high"] * 2
    assert [diagnose(one).advice.split("; ")[0] for one in (lost, half)] == [
        "--model.optimizer.lr 0.1", "--model.optimizer.lr 0.33",
    ]  # fmt: skip


def test_only_a_falling_rate_makes_a_loss_fall():
    curves = fallen(0.9, 0.1)
    fixed, falling = (
        Series(np.array([1.0, 200.0]), np.array([0.1, 0.1])),
        Series(np.array([1.0, 200.0]), np.array([0.1, 0.0])),
    )
    assert math.isnan(measure(dataclasses.replace(curves, rate=fixed)).gain)
    assert math.isfinite(measure(dataclasses.replace(curves, rate=falling)).gain)


def test_a_network_is_certain_or_doubts():
    """Of 10 classes, 64 % right are 0.4 of guessing wrong: a loss of 0.7 ln 10 is 0.3 more."""
    steps = np.arange(1.0, 101.0)
    accuracy = Series(np.array([50.0, 100.0]), np.array([0.5, 0.64]))
    curves = Curves("a", Series(steps, np.full(100, 0.7 * np.log(10))), accuracy=accuracy, num_classes=10)
    assert measure(curves).doubt == pytest.approx(0.3)


def compared_with_validation(kept_first: float, kept: float, val_loss: float) -> str:
    """The verdict on a run that is right on 60 % and 95 % of 10 classes at its two evaluations, and on validation knows
    these shares of that.
    """
    steps = np.arange(1.0, 101.0)
    at, accuracies = np.array([20.0, 100.0]), np.array([0.6, 0.95])
    shares = np.array([kept_first, kept])
    curves = Curves(
        "a",
        Series(steps, 0.2 + 2.1 * np.exp(-steps / 8)),
        accuracy=Series(at, accuracies),
        val_accuracy=Series(at, 0.1 + (accuracies - 0.1) * shares),
        val_loss=Series(at, np.array([1.6, val_loss])),
        num_classes=10,
    )
    found = measure(curves)
    assert (found.kept_first, found.kept) == pytest.approx((kept_first, kept)) and found.val_at == 20
    return diagnose(curves).verdict


def test_a_mismatch_shows_at_the_first_validation_and_overfitting_later():
    assert compared_with_validation(0.5, 0.5, 1.65) == "eval_mismatch"
    assert compared_with_validation(0.9, 0.5, 1.65) == "overfits"
    assert compared_with_validation(0.5, 0.5, 2.3) == "overfits"


def test_dropout_puts_training_behind_validation_by_design():
    """With the same curves, a network without it has labels that are wrong, and one with it tells nothing."""
    steps, at = np.arange(1.0, 101.0), np.array([50.0, 100.0])
    accuracy, val = Series(at, np.array([0.4, 0.5])), Series(at, np.array([0.5, 0.65]))
    plain = Curves(
        "a", Series(steps, np.full(100, 1.6)), accuracy=accuracy, val_accuracy=val,
        val_loss=Series(at, np.array([1.3, 1.1])), num_classes=10,
    )  # fmt: skip
    assert diagnose(plain).verdict == "wrong_labels"
    found = diagnose(dataclasses.replace(plain, mixed=True))
    assert found.verdict == "unsure" and "make training pictures harder" in found.evidence


def fallen(end: float, rate: float, **more) -> Curves:
    """A run that falls from ln 10 to ``end``, with an option each."""
    steps = np.arange(1.0, 201.0)
    loss = Series(steps, end + (2.3 - end) * np.exp(-steps / 20))
    settings = {"model.optimizer.lr": rate, "data.batch_size": 64, "seed_everything": 0} | more
    return Curves(f"lr{rate}", loss, num_classes=10, batch_size=settings["data.batch_size"], settings=settings)


def verdicts(runs: list[Curves]) -> list[str]:
    return [one.verdict for one in compared(runs, [diagnose(one) for one in runs])]


def test_siblings_say_on_which_side_a_rate_lies():
    runs = [fallen(0.9, 0.01), fallen(0.1, 0.1), fallen(1.0, 1.0)]
    assert verdicts(runs) == ["lr_too_low", "healthy", "lr_too_high"]
    found = compared(runs, [diagnose(one) for one in runs])[2]
    assert "--model.optimizer.lr 0.1" in found.advice and "lr0.1 differs in model.optimizer.lr alone" in found.evidence


def test_runs_that_differ_in_more_are_no_siblings():
    alone = [diagnose(one).verdict for one in (fallen(0.9, 0.01), fallen(0.1, 0.1))]
    assert verdicts([fallen(0.9, 0.01), fallen(0.1, 0.1, model="KD")]) == alone
    assert verdicts([fallen(0.9, 0.01, seed_everything=1), fallen(0.1, 0.1)]) == ["lr_too_low", "healthy"]


def test_a_sibling_with_a_larger_batch():
    runs = [fallen(0.9, 0.1, **{"data.batch_size": 4}), fallen(0.1, 0.1, **{"data.batch_size": 64})]
    found = compared(runs, [diagnose(one) for one in runs])
    assert [one.verdict for one in found] == ["batch_too_small", "healthy"]
    assert "--trainer.accumulate_grad_batches 8" in found[0].advice


def test_a_run_that_was_stopped_is_no_sibling():
    """The same curve, once whole and once stopped after a tenth of its steps, says nothing about the rate."""
    whole = fallen(0.1, 0.1)
    stopped = dataclasses.replace(whole, loss=Series(whole.loss.steps[:20], whole.loss.values[:20]))
    stopped = dataclasses.replace(stopped, settings=whole.settings | {"model.optimizer.lr": 0.3})
    assert verdicts([whole, stopped]) == [diagnose(whole).verdict, diagnose(stopped).verdict]


def test_a_network_that_goes_on_has_fallen_before():
    """Its loss is low at once: without what the configuration says, it looks as if the rate had been too high."""
    steps = np.arange(10.0, 2010.0, 10)
    loss = Series(steps, math.log(10) * (0.37 + 0.03 * np.exp(-steps / 500)))
    found = [diagnose(Curves("x", loss, num_classes=10, goes_on=goes_on)) for goes_on in (False, True)]
    assert found[0].verdict == "lr_too_high" and found[1].verdict != "lr_too_high"


def test_no_network_is_certain_of_mixed_labels():
    """The loss of mixed labels has a floor, so a high one with many right pictures is no sign of a low rate."""
    steps = np.arange(1.0, 2001.0)
    loss = Series(steps, math.log(10) * (0.45 + 0.55 * np.exp(-steps / 300)))
    accuracy = Series(np.array([1000.0, 2000.0]), np.array([0.8, 0.85]))
    curves = Curves("x", loss, accuracy=accuracy, num_classes=10, mixed=True)
    assert measure(curves).doubt > 0.25
    assert math.isnan(measure(dataclasses.replace(curves, soft_labels=True)).doubt)


SHIPPED = {"digits/baseline.yaml": ["--trainer.max_epochs", "8"], "digits/dlb.yaml": ["--trainer.max_epochs", "8"]}


@pytest.mark.parametrize("config", SHIPPED)
def test_a_shipped_run_is_healthy_and_says_so_in_a_line(config, capsys):
    folder = fit(config, *SHIPPED[config])
    line = [line for line in capsys.readouterr().out.splitlines() if line.startswith("doctor: ")]
    assert len(line) == 1 and "Nothing wrong was found" in line[0]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    assert "doctor/text_summary" in events.Tags()["tensors"]


def test_the_line_can_be_switched_off_and_counts_for_no_id(capsys):
    from distill_lightning.runs import RunConfig

    few = ["--trainer.max_epochs", "3", "--trainer.log_every_n_steps", "5", "--name"]
    said = fit("digits/baseline.yaml", *few, "said")
    assert "doctor: " in capsys.readouterr().out
    silent = fit("digits/baseline.yaml", *few, "silent", "--doctor", "false")
    assert "doctor: " not in capsys.readouterr().out
    assert RunConfig.read(said).id() == RunConfig.read(silent).id()
