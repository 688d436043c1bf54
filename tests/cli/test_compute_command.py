"""``distill compute``: functions that compute results, as runs and as entries of studies."""

import json
from pathlib import Path

import pytest
import yaml
from helpers import distill, rows

from distill_lightning.runs import RunConfig

FUNCTION = "distill_lightning.theory.gaussian_inputs.figure_4"
SHORT = ["--members", 2, "--steps", 5]


def runs() -> list[Path]:
    return sorted(path.parent for path in Path().glob("logs/*/*/*/summary.json"))


def test_what_it_leaves_is_a_run(capsys):
    assert distill("compute", FUNCTION, *SHORT, "--seed_everything", 3, "--decay=0.5") == 0
    (folder,) = runs()
    assert folder == Path("logs/made/gaussian_inputs/figure_4-seed3")
    summary, config = json.loads((folder / "summary.json").read_text()), RunConfig.read(folder)
    assert summary["config_digest"] == config.id() and summary["seed"] == 3
    assert 0 < summary["metrics"]["accuracy/one"] < 1
    assert [row[:2] for row in rows(folder)] == [(1, "test/accuracy_by_members"), (2, "test/accuracy_by_members")]
    assert config.settings()["model.decay"] == 0.5
    capsys.readouterr()
    assert distill("list") == 0 and "figure_4-seed3" in capsys.readouterr().out
    assert distill("show", folder) == 0 and "finished" in capsys.readouterr().out
    assert (
        distill("report", "logs", "--out", "page.html") == 0 and "accuracy_by_members" in Path("page.html").read_text()
    )


def test_the_same_seed_gives_the_same_numbers_and_another_option_another_digest():
    for options in ([], [], ["--decay", 0.2]):
        assert distill("compute", FUNCTION, *SHORT, *options) == 0
    first, again, other = (json.loads((folder / "summary.json").read_text()) for folder in runs())
    assert first["metrics"] == again["metrics"] != other["metrics"]
    assert first["config_digest"] == again["config_digest"] != other["config_digest"]


def test_an_entry_of_a_study_may_be_a_function(capsys):
    """It is found again, resumes nothing, and stands in a table beside fits, whose options are not for it."""
    study = {
        "for": {"seed": 1},
        "options": {"trainer.max_epochs": 1, "data.samples": 40, "data.batch_size": 40},
        "runs": {
            "single": {"config": "multi_view/baseline", "for": {"member": 1}},
            "gauss": {"function": FUNCTION, "options": {"members": 2, "steps": 5}},
            "views": {
                "function": "distill_lightning.theory.multi_view.views_learned",
                "for": {"k": [0]},
                "options": {"data": "MultiView", "data.samples": 40, "networks": {"one": ["${single}"]}},
            },
        },
        "tables": [{"rows": [{"run": "gauss"}, {"run": "views"}], "columns": ["accuracy/one", "union/one"]}],
        "figures": [
            {
                "run": ["gauss", "views"],
                "y": "number",
                "bars": {"accuracy/one": "one", "views/one": "views"},
                "as": "number",
            }
        ],
    }
    Path("study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    assert distill("study", "study.yaml", "--dry_run") == 0
    plan = capsys.readouterr().out
    assert plan.count("\ndistill compute ") == 2 and plan.count("\ndistill fit ") == 1
    assert distill("study", "study.yaml") == 0
    left = {folder: (folder / "summary.json").stat().st_mtime_ns for folder in runs()}
    assert len(left) == 3
    views = next(folder for folder in left if folder.name.startswith("views"))
    assert (views / "views.svg").read_text().count("<svg") == 1
    assert 1 <= json.loads((views / "summary.json").read_text())["metrics"]["views/one"] <= 2
    table, figure = (Path("logs/studies/study") / name for name in ("table_1.csv", "figure_1.svg"))
    assert "gauss" in table.read_text() and "views" in figure.read_text()
    assert '"bars"' in (Path("logs/studies/study") / "report.html").read_text()
    assert distill("study", "study.yaml") == 0
    assert left == {folder: (folder / "summary.json").stat().st_mtime_ns for folder in runs()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "distill compute needs a function"),
        (["os.system"], "os.system is no function of distill_lightning.theory"),
        (["distill_lightning.theory.gauss.f"], "there is no module distill_lightning.theory.gauss"),
        (["distill_lightning.theory.gaussian_inputs.figure_5"], "did you mean figure_4"),
        (["distill_lightning.theory.networks.train"], "has no function train that computes"),
        ([FUNCTION, "--members", "0"], "members is 0: it must be 1 or more"),
        ([FUNCTION, "--setting", "two"], "two"),
        ([FUNCTION, "--width", "3"], "width"),
        (["distill_lightning.theory.random_features.figure_3"], "data"),
    ],
)
def test_wrong_input_is_one_line(given, message, capsys):
    assert distill("compute", *given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and len(error) < 210
    assert not Path("logs").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"function": FUNCTION, "config": "digits/kd"}, "has config and function"),
        ({"function": 3}, "function is 3"),
        ({"function": FUNCTION, "options": {"stepps": 3}}, "the run a: "),
    ],
)
def test_wrong_entries_of_a_study(entry, message, capsys):
    Path("study.yaml").write_text(yaml.safe_dump({"runs": {"a": entry}}))
    assert distill("study", "study.yaml", "--dry_run") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
