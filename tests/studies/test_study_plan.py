"""Plans of studies: the runs that a YAML gives, and the mistakes that are refused."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from distill_lightning.errors import InputError
from distill_lightning.runs import RunConfig
from distill_lightning.studies import Resolved, StudyPlan, plan_study, read_study
from distill_lightning.studies.plan import requested_gpus


def resolve(args: list[str]) -> Resolved:
    """Stands for the command's own: options as they are given."""
    options = dict(a.removeprefix("--").partition("=")[::2] for a in args if "=" in a)
    values = {key: yaml.safe_load(value) for key, value in options.items()}
    trains = "ensemble" not in " ".join(args)
    options = {"seed_everything": 0, "model": values, "data": {}, "trainer": {}}
    return Resolved(RunConfig(options), Path("logs/d/m"), trains)


def plan(study: dict | str, given: list[str] | None = None) -> StudyPlan:
    path = Path("study.yaml")
    path.write_text(study if isinstance(study, str) else yaml.safe_dump(study, sort_keys=False))
    return plan_study(read_study(path), "logs", resolve, given or [])


SMALL = {
    "for": {"repetition": 2},
    "runs": {
        "ensemble": {"config": "ensemble.yaml", "options": {"members": "${single}"}},
        "single": {
            "config": "a.yaml",
            "for": {"repetition": 2, "member": 3},
            "options": {"lr": 0.1, "seed_everything": "1{repetition}{member}"},
        },
        "taught": {"config": "b.yaml", "options": {"teacher": "${single: member=1}"}},
        "stopped": {"config": "b.yaml", "options": {"teacher": ["${single/best: member=0}", "${taught}"]}},
    },
}


def test_a_reference_stands_for_the_runs_that_agree():
    made = plan(SMALL)
    assert [len(made.entries[name]) for name in ("single", "ensemble", "taught", "stopped")] == [6, 2, 2, 2]
    ensemble = made.entries["ensemble"][1]
    assert [run.variables for run in ensemble.needs] == [{"repetition": 1, "member": m} for m in range(3)]
    folders = [str(run.folder / "checkpoints" / "last.ckpt") for run in ensemble.needs]
    assert f"--members={json.dumps(folders)}" in ensemble.arguments
    taught = made.entries["taught"][0]
    assert [run.variables for run in taught.needs] == [{"repetition": 0, "member": 1}]
    assert f"--teacher={taught.needs[0].folder}/checkpoints/last.ckpt" in taught.arguments
    both = next(a for a in made.entries["stopped"][1].arguments if a.startswith("--teacher="))
    assert both.count(".ckpt") == 2 and both.count("best.ckpt") == 1
    order = [run.name for run in made.runs]
    assert order.index("single-repetition1-member2") < order.index("ensemble-repetition1")


def test_one_value_changes_what_depends_on_it_and_nothing_else():
    before = {run.name: run.digest for run in plan(SMALL).runs}
    assert len(set(before.values())) == len(before)
    changed = copy.deepcopy(SMALL)
    changed["runs"]["taught"]["options"]["alpha"] = 2
    after = {run.name: run.digest for run in plan(changed).runs}
    assert {name.partition("-")[0] for name in before if before[name] != after[name]} == {"taught", "stopped"}
    changed = copy.deepcopy(SMALL)
    changed["runs"]["single"]["options"]["lr"] = 0.2
    assert not set(before.values()) & {run.digest for run in plan(changed).runs}


def test_two_names_of_one_run_are_one_folder():
    entries = {"a": {"config": "x", "for": {"seed": 2}}, "b": {"config": "x", "for": {"s": [1]}}}
    entries["b"]["options"] = {"seed_everything": "{s}"}
    made = plan({"runs": entries})
    first, second = made.entries["a"][1], made.entries["b"][0]
    assert first.folder == second.folder and second.needs == (first,)


def test_a_finished_run_is_found_wherever_it_lies():
    run = plan(SMALL).entries["single"][4]
    elsewhere = Path("logs/d/m/by-hand")
    elsewhere.mkdir(parents=True)
    (elsewhere / "summary.json").write_text(json.dumps({"config_digest": run.digest}))
    made = plan(SMALL)
    assert made.entries["single"][4].folder == elsewhere
    assert any(str(elsewhere) in argument for argument in made.entries["ensemble"][1].arguments)
    assert [r.digest for r in made.runs] == [r.digest for r in plan(SMALL).runs]


def test_a_run_with_long_variables_has_a_name_that_fits():
    values = [["x" * 200], ["y" * 200]]
    made = plan({"runs": {"a": {"config": "x", "for": {"augment": values}, "options": {"augment": "{augment}"}}}})
    names = [run.folder.name for run in made.runs]
    assert len(set(names)) == 2 and all(len(name) < 170 for name in names)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [(None, 1), (1, 1), ("2", 2), (2, 2), (-1, -1), ("-1", -1), ([0, 3], None), ("0,3", None), ("auto", 1)],
)
def test_how_many_gpus_a_run_asks_for(devices, expected):
    assert requested_gpus(devices) == expected


def test_a_function_gets_its_own_options_and_those_of_the_data_alone():
    entries = {"single": {"config": "a.yaml"}, "views": {"function": "f", "options": {"of": "${single}", "n": 2}}}
    given = ["--trainer.accelerator", "gpu", "--data.root", "x", "--data.size=3"]
    made = plan({"for": {"seed": 1}, "options": {"lr": 0.1}, "runs": entries}, given)
    single, views = made.runs
    assert views.needs == (single,)
    last = f"{single.folder}/checkpoints/last.ckpt"
    assert views.arguments[:7] == ("compute", "f", f"--of={last}", "--n=2", "--data.root", "x", "--data.size=3")
    assert views.arguments[7:] == ("--seed_everything=0", "--log_dir", "logs", "--name", views.folder.name)
    assert set(given) <= set(single.arguments) and "--lr=0.1" in single.arguments


def test_a_variable_may_be_a_reference():
    """Its entry is planned first, wherever it stands."""
    entries = {
        "student": {"config": "x", "for": {"t": ["${a}", "${b}"]}, "options": {"teacher": "{t}"}},
        "a": {"config": "x"},
        "b": {"config": "y", "options": {"lr": 1}},
    }
    made = plan({"runs": entries})
    assert [run.needs for run in made.entries["student"]] == [made.entries["a"], made.entries["b"]]


WRONG = {
    "circle": (
        {"a": {"config": "x", "options": {"t": "${b}"}}, "b": {"config": "x", "options": {"t": "${a}"}}},
        "circle",
    ),
    "itself": ({"a": {"config": "x", "options": {"t": "${a}"}}}, "a needs a"),
    "missing": ({"teacher": {"config": "x"}, "b": {"config": "x", "options": {"t": "${techer}"}}}, "mean teacher"),
    "key": ({"a": {"config": "x", "option": {}}}, "option; did you mean options"),
    "config": ({"a": {"options": {}}}, "no config"),
    "variable": ({"a": {"config": "x", "options": {"t": "{tempreature}"}}}, "no variable tempreature"),
    "value": (
        {"a": {"config": "x", "for": {"seed": 2}}, "b": {"config": "x", "options": {"t": "${a: seed=5}"}}},
        "needs a with seed 5",
    ),
    "restriction": (
        {"a": {"config": "x", "for": {"seed": 2}}, "b": {"config": "x", "options": {"t": "${a: n=0}"}}},
        "a has no variable n",
    ),
    "no checkpoint": (
        {"a": {"config": "ensemble.yaml"}, "b": {"config": "x", "options": {"t": "${a}"}}},
        "leaves no checkpoint",
    ),
    "form": ({"a": {"config": "x"}, "b": {"config": "x", "options": {"t": "x/${a}"}}}, "no reference"),
    "same": ({"a": {"config": "x", "for": {"m": 2}}}, "give the same run"),
    "same, behind another": ({"b": {"config": "x"}, "a": {"config": "x", "for": {"m": 2}}}, "give the same run"),
    "options": ({"a": {"config": "x", "options": ["t"]}}, "expected options by name"),
    "for": ({"a": {"config": "x", "for": ["seed"]}}, "give variables by name"),
    "config is": ({"a": {"config": 3}}, "expected the name of a file"),
    "reserved": ({"a": {"config": "x", "options": {"name": "me"}}}, "which the study itself sets"),
    "none": ({}, "names no runs"),
    "missing, in a variable": (
        {"a": {"config": "x", "for": {"t": ["${b}"]}, "options": {"x": "{t}"}}},
        "needs b, which is no run",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_studies_are_refused(wrong):
    entries, message = WRONG[wrong]
    with pytest.raises(InputError, match=message) as error:
        plan({"runs": entries})
    assert "\n" not in str(error.value)
