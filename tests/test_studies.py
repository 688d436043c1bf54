"""Studies: what a YAML comes to, what is run, what is not run again."""

import copy
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from helpers import CONFIGS, command, distill, load, rows

from distill_lightning.errors import InputError
from distill_lightning.report.study import Check, Results, figure_of, paired, table_of
from distill_lightning.studies import Machine, Plan, Resolved, _devices, combinations, fill

STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))


def resolve(args: list[str]) -> Resolved:
    """Stands for the command's own: options as they are given."""
    options = dict(a.removeprefix("--").partition("=")[::2] for a in args if "=" in a)
    values = {key: yaml.safe_load(value) for key, value in options.items()}
    trains = "ensemble" not in " ".join(args)
    return Resolved({"seed_everything": 0, "model": values, "data": {}, "trainer": {}}, Path("logs/d/m"), trains)


def plan(study: dict | str, given: list[str] | None = None) -> Plan:
    path = Path("study.yaml")
    path.write_text(study if isinstance(study, str) else yaml.safe_dump(study, sort_keys=False))
    return Plan(path, "logs", resolve, given or [])


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


def test_variables():
    assert combinations({"a": 2, "b": ["x", "y"]}, "") == [
        {"a": 0, "b": "x"}, {"a": 0, "b": "y"}, {"a": 1, "b": "x"}, {"a": 1, "b": "y"},
    ]  # fmt: skip
    assert combinations(None, "") == [{}]
    assert fill({"t": "{t}", "n": "1{r}{m}", "s": "x{r}", "l": ["{t}"]}, {"t": 2.5, "r": 0, "m": 8}, "") == {
        "t": 2.5, "n": 108, "s": "x0", "l": [2.5],
    }  # fmt: skip
    for wrong in (0, [], "3", -1, True):
        with pytest.raises(InputError, match="for a is"):
            combinations({"a": wrong}, "here")


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
    assert first.folder == second.folder and second.needs == [first]


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
    [
        (None, "0"),
        (1, "0"),
        ("2", "0,1"),
        (2, "0,1"),
        (-1, "0,1,2,3"),
        ("-1", "0,1,2,3"),
        ([0, 3], None),
        ("auto", "0"),
    ],
)
def test_a_run_is_given_the_gpus_that_it_asks_for(devices, expected, monkeypatch):
    """However that is written; where it names them, it is left to it."""
    made = plan({"runs": {"a": {"config": "x"}}})
    made.runs[0].devices = _devices(devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    given = {}

    class Started:
        pid = 1

        def __init__(self, command, env, **_):
            given.update(env)

    monkeypatch.setattr("distill_lightning.studies.subprocess.Popen", Started)
    Machine(made, 1, Path("out"), ["0", "1", "2", "3"])._start(made.runs[0])
    assert given.get("CUDA_VISIBLE_DEVICES") == expected


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
    "same": ({"a": {"config": "x", "for": {"m": 2}}}, "come to the same run"),
    "same, behind another": ({"b": {"config": "x"}, "a": {"config": "x", "for": {"m": 2}}}, "come to the same run"),
    "options": ({"a": {"config": "x", "options": ["t"]}}, "expected options by name"),
    "for": ({"a": {"config": "x", "for": ["seed"]}}, "give variables by name"),
    "config is": ({"a": {"config": 3}}, "expected the name of a file"),
    "reserved": ({"a": {"config": "x", "options": {"name": "me"}}}, "the study's to set"),
    "none": ({}, "names no runs"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_studies_are_refused(wrong):
    entries, message = WRONG[wrong]
    with pytest.raises(InputError, match=message) as error:
        plan({"runs": entries})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"tables": [{"rows": [{"run": "singel"}], "columns": ["x"]}]}, "unknown run singel; did you mean single"),
        ({"tables": [{"rows": [{"run": "single", "lable": ""}], "columns": ["x"]}]}, "lable; did you mean label"),
        ({"tables": [{"rows": [{"run": "single", "label": "{memer}"}], "columns": ["x"]}]}, "the variable memer"),
        ({"tables": [{"rows": [{"run": "single"}]}]}, "needs rows and columns"),
        ({"tables": [{"rows": [{"run": "single"}], "columns": [{"metric": "x", "as": "y"}]}]}, "as is y: expected"),
        ({"tables": [{"rows": [{"run": "single"}], "columns": ["x"], "spread": "sd"}]}, "expected std or interval"),
        ({"figures": [{"run": "single", "y": "a", "x": "temperature"}]}, "the variable temperature"),
        ({"figures": [{"run": "single"}]}, "has no y"),
        ({"tables": [{"rows": [{"run": "single", "where": {"member": "1"}}], "columns": ["x"]}]}, "member is never 1"),
        ({"tables": [{"rows": [{"run": "single"}], "columns": "x"}]}, "columns is x: expected list"),
        ({"tables": [{"rows": ["single"], "columns": ["x"]}]}, "a row of .* is single"),
        ({"tables": [{"rows": [{"run": "single"}], "columns": ["test_accuracy"]}]}, "mean test/accuracy"),
        ({"tables": [{"rows": [{"run": "single"}], "columns": [{"metric": "parameter"}]}]}, "mean parameters"),
        ({"tables": {"title": "T"}}, "expected a list"),
        ({"tables": [{"title": 2015, "rows": [], "columns": []}]}, "title is 2015: expected str"),
        (
            {"tables": [{"over": "member", "rows": [{"run": "single", "minus": "ensemble"}], "columns": ["x"]}]},
            "the variable member, which ensemble has not",
        ),
        ({"figures": [{"run": ["single", "ensemble"], "y": "a", "x": "member"}]}, "which ensemble has not"),
        ({"figures": [{"run": "single", "y": "a", "x": "member", "log_x": True}]}, "expected numbers it can show"),
    ],
)
def test_wrong_tables_are_refused_before_anything_is_run(part, message):
    made = plan(SMALL | part)
    with pytest.raises(InputError, match=message):
        Check(made.path, {name: [r.variables for r in runs] for name, runs in made.entries.items()}).study(made.study)


def finish(made: Plan) -> None:
    """Gives each run of a plan a result: 0.1 for each repetition, 0.01 for each member."""
    for run in made.runs:
        run.folder.mkdir(parents=True)
        value = 0.5 + 0.1 * run.variables["repetition"] + 0.01 * run.variables.get("member", 5)
        summary = {"metrics": {"test/accuracy": value}, "config_digest": run.digest}
        (run.folder / "summary.json").write_text(json.dumps(summary))


def test_tables():
    made = plan(SMALL)
    finish(made)
    results = Results(made.entries)
    spec = {"rows": [{"run": "single", "label": "member {member}", "paper": 3}], "columns": ["test/accuracy"]}
    assert table_of(spec, results).rows == [
        ["member 0", "55.00 ± 7.07", "3", "2"],
        ["member 1", "56.00 ± 7.07", "3", "2"],
        ["member 2", "57.00 ± 7.07", "3", "2"],
    ]
    spec = {"rows": [{"run": "single"}], "columns": [{"metric": "test/accuracy", "label": "r{repetition}"}]}
    assert table_of(spec, results).header == ["", "r0", "r1", "n"]
    assert table_of(spec, results).rows == [["single", "51.00 ± 1.00", "61.00 ± 1.00", "3"]]
    spec = {"rows": [{"run": "single"}], "columns": ["test/accuracy"], "over": "repetition"}
    assert table_of(spec, results).rows == [["single", "56.00 ± 7.07", "2"]]
    spec = {"rows": [{"run": "ensemble", "minus": "single"}], "columns": ["test/accuracy"], "spread": "interval"}
    assert table_of(spec | {"rows": [{"run": "single", "minus": "ensemble"}]}, results).rows == [
        ["single", "−4.00 [−4.00, −4.00]", "2"]
    ]
    assert table_of(spec, results).rows == [["ensemble", "+4.00 [4.00, 4.00]", "2"]]  # paired: the same in both
    for run in made.entries["single"]:
        (run.folder / "summary.json").unlink()
    assert table_of(spec, Results(made.entries)).rows == [["ensemble", "", "0"]]


def test_figures_call_an_entry_what_a_table_calls_it():
    made = plan(SMALL)
    finish(made)
    tables = [
        {"rows": [{"run": "single", "label": "member {member}"}, {"run": "ensemble", "label": "all three"}]},
        {"rows": [{"run": "ensemble", "label": "another"}, {"run": "taught", "minus": "ensemble", "label": "a - b"}]},
    ]
    results = Results(made.entries, tables)
    assert {results.labels[entry] for entry in ("single", "ensemble", "taught")} == {"single", "all three", "taught"}
    figure = figure_of({"run": "ensemble", "y": "test/accuracy", "x": "repetition"}, results)
    assert "all three" in figure


def test_pairs_are_by_shared_variables():
    own = [({"r": r, "m": m}, r * 10 + m) for r in range(2) for m in range(3)]
    other = [({"r": r, "s": s}, r * 9.0 + s) for r in range(2) for s in range(2)]
    assert paired(own, other, None) == [1 - 0.5, 11 - 9.5]
    assert paired(own, [], None) == []
    # one that is missing takes its pair along
    same = [({"r": r, "m": m}, r * 10 + m + 1.0) for r in range(2) for m in range(3)]
    assert paired(own[:1] + own[2:], same, "r") == [-1, -1]


# Through the command


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_study_can_be_planned(path, capsys, mnist, cifar100):
    root = {"quick": [], "three_mysteries_cifar100": ["--data.root", cifar100]}.get(path.stem, ["--data.root", mnist])
    assert distill("study", path, "--dry_run", *root) == 0
    out = capsys.readouterr().out
    said = int(out.split(" runs, 0 done")[0].rpartition(" ")[2])
    assert said == out.count("\ndistill fit --config ")
    assert not Path("logs").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["study", "quick.yml"], "there is no study"),
        (["study"], "the following arguments are required: study"),
        (["study", CONFIGS / "studies" / "quick.yaml", "--jobs", 0], "--jobs is 0"),
        (["study", CONFIGS / "studies" / "quick.yaml", "--data.rot", "x"], "the run teacher: data has no option rot"),
        (["study", CONFIGS / "digits" / "kd.yaml"], "names no runs"),
    ],
)
def test_wrong_commands_are_one_line(given, message, capsys):
    assert distill(*given) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def write_study(**runs: dict) -> Path:
    given = {"trainer.max_epochs": 4, "data.train_part": 320, "checkpoint.every_n_steps": 1}
    study = {
        "for": {"seed": 2},
        "options": given,
        "runs": runs,
        "tables": [{"title": "T", "rows": [{"run": name} for name in runs], "columns": ["test/accuracy", "test/nll"]}],
        "figures": [{"run": list(runs), "y": "val/accuracy"}],
    }
    for entry in runs.values():
        entry["config"] = str(CONFIGS / "digits" / entry["config"])
    path = Path("small.yaml")
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def members_and_student() -> Path:
    return write_study(
        member={"config": "baseline.yaml"},
        ensemble={"config": "ensemble.yaml", "for": {}, "options": {"model.members": "${member}"}},
        student={"config": "kd.yaml", "for": {"seed": 1}, "options": {"trainer.callbacks.teacher": "${member}"}},
    )


def start(path: Path, *given: str) -> subprocess.Popen:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        command("study", path, "--jobs", 2, *given), env=os.environ | {"OMP_NUM_THREADS": "1"}, **options
    )


def finished() -> dict[str, int]:
    return {str(path.parent): path.stat().st_mtime_ns for path in Path().glob("logs/*/*/*/summary.json")}


def epochs_said() -> dict[str, int]:
    """How often each run came to the end of an epoch, over all its starts."""
    logs = Path("logs/studies/small/output").glob("*.log")
    return {log.stem: sum(line.startswith("epoch ") for line in log.read_text().splitlines()) for log in logs}


def test_killed_at_any_moment_and_two_at_once(capsys, monkeypatch):
    """SIGKILL to the study, with or without its runs; then two studies on the same logs."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a job alone would get both cores, and round otherwise
    path = members_and_student()
    rng, early = random.Random(0), {}
    for with_runs in (True, False):
        study = start(path)
        while not epochs_said() or (not with_runs and len(epochs_said()) < 3):  # something is going on
            assert study.poll() is None, study.communicate()[0]
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        children = subprocess.run(["pgrep", "-P", str(study.pid)], capture_output=True, text=True).stdout.split()
        study.kill()
        study.communicate()
        for child in children if with_runs else []:  # without, they notice, save and leave
            os.kill(int(child), signal.SIGKILL)
        early |= finished()
    assert len(early) < 4
    both = [start(path), start(path)]
    said = [study.communicate(timeout=300)[0] for study in both]
    assert [study.returncode for study in both] == [0, 0], said
    assert "4 of 4 runs done" in said[0] and "4 of 4 runs done" in said[1]
    assert len(finished()) == 4 and len(list(Path().glob("logs/*/*/*/config.yaml"))) == 4
    assert early.items() <= finished().items()  # nothing that was finished was run again
    for name, count in epochs_said().items():  # an epoch may come twice where a kill fell between it and its checkpoint
        assert count <= (0 if name.startswith("ensemble") else 4 + 1), name
    table = Path("logs/studies/small/tables.md").read_text()
    # an uninterrupted one comes to the same
    assert distill("study", path, "--log_dir", "other") == 0
    assert Path("other/studies/small/tables.md").read_text() == table
    ours, theirs = (sorted(Path(f).glob("digits/*/*/checkpoints/last.ckpt")) for f in ("logs", "other"))
    assert [f.parent.parent.name for f in ours] == [f.parent.parent.name for f in theirs]
    for a, b in zip(ours, theirs, strict=True):
        first, second = (load(f.parent.parent)["state_dict"] for f in (a, b))
        assert all((first[key] == second[key]).all() for key in first)
        assert rows(a.parent.parent) == rows(b.parent.parent)
    # and again nothing is run
    before = finished()
    capsys.readouterr()
    assert distill("study", path, "--dry_run") == 0
    assert "4 runs, 4 done" in capsys.readouterr().out
    assert distill("study", path) == 0
    assert finished() == before
    assert {f.name for f in Path("logs/studies/small").iterdir()} >= {
        "tables.md", "table_1.csv", "figure_1.svg", "report.html",
    }  # fmt: skip


def test_a_failure_stops_only_what_needs_it(capsys):
    path = write_study(
        good={"config": "baseline.yaml", "for": {}},
        bad={"config": "baseline.yaml", "for": {}, "options": {"model.optimizer.lr": 1e30}},
        student={"config": "kd.yaml", "for": {}, "options": {"trainer.callbacks.teacher": "${bad}"}},
    )
    assert distill("study", path, "--jobs", 2) == 1
    out = capsys.readouterr().out
    assert "1 of 3 runs done, 1 failed, 1 blocked" in out
    assert "failed: bad: distill: FloatingPointError: the loss is not finite" in out
    assert "not run, for what it needs has failed: student" in out
    assert "| good |" in out


def test_what_nohup_ignores_is_ignored():
    path = write_study(one={"config": "baseline.yaml", "for": {}, "options": {"trainer.max_epochs": 3}})
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a child inherits
    try:
        study = start(path)
    finally:
        signal.signal(signal.SIGHUP, before)
    while not epochs_said():
        assert study.poll() is None
        time.sleep(0.05)
    study.send_signal(signal.SIGHUP)
    out, _ = study.communicate(timeout=100)
    assert study.returncode == 0 and "1 of 1 runs done" in out


def test_an_interrupt_saves_and_the_next_start_goes_on():
    path = write_study(one={"config": "dlb.yaml", "for": {}, "options": {"trainer.max_epochs": 40}})
    study = start(path)
    while not epochs_said() or max(epochs_said().values()) < 2:
        assert study.poll() is None
        time.sleep(0.05)
    study.send_signal(signal.SIGINT)
    out, _ = study.communicate(timeout=60)
    assert study.returncode == 130, out
    assert "the same command goes on" in out
    assert not finished()
    assert distill("study", path) == 0
    assert len(finished()) == 1
    assert set(epochs_said().values()) == {40}  # none of them twice


def test_an_old_error_is_not_given_as_the_cause(tmp_path):
    run = plan(SMALL).entries["single"][0]
    machine = Machine.__new__(Machine)
    machine.folder, machine.said_before = tmp_path, {7: 20}
    run.process = subprocess.CompletedProcess([], -9)
    run.process.pid = 7
    (tmp_path / f"{run.folder.name}.log").write_text("distill: old error\n" + "x" * 5 + "\nmore\n")
    assert machine.last_words(run) == "killed by signal 9"
