"""Run folders: which folder is chosen, and whether its run may be resumed."""

import copy
import os
from pathlib import Path

import pytest
import yaml

from distill_lightning import runs
from distill_lightning.errors import InputError
from distill_lightning.runs import Declared, RunConfig
from distill_lightning.runs.folder import refuse_changes
from distill_lightning.runs.slurm import folder_of_job

CONFIG = {
    "seed_everything": 0,
    "name": None,
    "model": {"class_path": "Baseline", "init_args": {"network": {"class_path": "Net"}, "optimizer": {"lr": 0.1}}},
    "data": {
        "class_path": "distill_lightning.data.digits.Digits",
        "init_args": {"root": "data", "batch_size": 60, "num_workers": 0},
    },
    "trainer": {"max_epochs": 3, "devices": 1, "log_every_n_steps": 50, "callbacks": None},
    "checkpoint": {"every_n_steps": None},
}
FREE = frozenset({"data.init_args.root", "data.init_args.num_workers"})
RUN = RunConfig(CONFIG, Declared(FREE))
STEM = Path("logs/digits/baseline")


def changed(key: str, value) -> RunConfig:
    config = copy.deepcopy(CONFIG)
    *parents, last = key.split(".")
    part = config
    for parent in parents:
        part = part[parent]
    part[last] = value
    return RUN.replaced(config)


def test_each_start_gets_a_folder_of_its_own():
    names = [runs.start(STEM, "net-seed0", RUN).folder.name for _ in range(3)]
    assert names == ["net-seed0", "net-seed0-2", "net-seed0-3"]
    assert yaml.safe_load((STEM / "net-seed0-2" / "config.yaml").read_text())["name"] == "net-seed0-2"
    assert sorted(f.name for f in STEM.iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.init_args.optimizer.lr", 0.2),
        ("model.init_args.network.class_path", "Other"),
        ("data.init_args.batch_size", 30),
        ("data.class_path", "MNIST"),
        ("trainer.max_epochs", 4),
        ("trainer.callbacks", [{"class_path": "SoftTargets"}]),
        ("seed_everything", 1),
    ],
)
def test_changes_that_matter_are_refused_by_name(key, value):
    runs.start(STEM, "a", RUN)
    with pytest.raises(InputError, match=key.replace(".", r"\.")):
        runs.resume(STEM, "a", changed(key, value), "last")
    assert changed(key, value).id() != RUN.id()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.init_args.root", "elsewhere"),
        ("data.init_args.num_workers", 4),
        ("trainer.log_every_n_steps", 10),
        ("trainer.devices", 2),
        ("checkpoint.every_n_steps", 5),
    ],
)
def test_changes_that_do_not_matter_are_free(key, value):
    folder = runs.start(STEM, "a", RUN).folder
    assert runs.resume(STEM, "a", changed(key, value), "last").folder == folder
    assert changed(key, value).id() == RUN.id()


def test_without_a_name_the_newest_unfinished_run_goes_on():
    folders = [runs.start(STEM, "a", RUN).folder for _ in range(3)]
    for age, folder in enumerate(folders):
        os.utime(folder / "config.yaml", (1000 + age, 1000 + age))
    (folders[2] / "summary.json").write_text("{}")
    run = runs.resume(STEM, None, RUN, "last")
    assert run.folder == folders[1]
    assert run.resume_from is None  # a folder without a checkpoint yet: it starts there


def test_nothing_to_go_on_with_is_an_error():
    for name in (None, "a"):
        with pytest.raises(InputError, match="there is no"):
            runs.resume(STEM, name, RUN, "last")
    with pytest.raises(InputError, match=r"x\.ckpt"):
        runs.resume(STEM, None, RUN, "x.ckpt")


def test_going_on_from_an_older_checkpoint_gives_up_what_came_after():
    run = runs.start(STEM, "a", RUN)
    run.checkpoints.mkdir()
    (run.checkpoints / "last.ckpt").write_text("last")
    with pytest.raises(InputError, match="another process"):
        runs.resume(STEM, "a", RUN, "last")
    assert run.busy()
    run.release()
    assert not run.busy()
    run.summary.write_text("{}")
    with pytest.raises(InputError, match=r"best\.ckpt"):
        runs.resume(STEM, "a", RUN, "best")
    assert runs.resume(STEM, "a", RUN, str(run.checkpoints / "last.ckpt")).finished
    (run.checkpoints / "best.ckpt").write_text("best")
    again = runs.resume(STEM, "a", RUN, "best")
    assert not again.finished
    assert not run.summary.exists()
    assert again.resume_from.read_text() == "best"
    assert again.resume_from.name == "last.ckpt"


def test_a_checkpoint_outside_a_run_is_refused():
    Path("lonely.ckpt").write_text("")
    with pytest.raises(InputError, match="not in the checkpoints of a run"):
        runs.resume(STEM, None, RUN, "lonely.ckpt")


def test_a_requeued_job_finds_its_folder(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    folder = runs.start(STEM, "a", RUN).folder
    (folder / "slurm_job_id").write_text("77")
    assert folder_of_job(STEM, RUN) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert folder_of_job(STEM, RUN) == folder
    assert folder_of_job(STEM, changed("seed_everything", 1)) is None  # another run of the same job
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert folder_of_job(STEM, RUN) is None


def test_a_teacher_is_known_by_what_it_is_not_by_where_it_lies(tmp_path):
    one = runs.start(tmp_path / "a" / "digits" / "baseline", "t", RUN)
    two = runs.start(tmp_path / "b" / "digits" / "baseline", "other", RUN)
    birds = runs.start(tmp_path / "b" / "birds" / "baseline", "t", RUN)

    def taught(run: runs.Run) -> RunConfig:
        teacher = {"teacher": str(run.checkpoints / "last.ckpt")}
        return RUN.with_options(trainer={"callbacks": [{"init_args": teacher}]})

    assert taught(one).id() == taught(two).id() != taught(birds).id()
    refuse_changes(taught(one), taught(two), runs.Run(tmp_path))
    assert changed("data.init_args.a_new_option", None).id() == RUN.id()
    for key, value in (("checkpoint", {"monitor": "val/nll"}), ("trainer", {"limit_test_batches": 1})):
        assert RUN.with_options(**{key: value}).id() != RUN.id()


def test_a_folder_of_pictures_counts_by_its_path():
    """site1/pictures and site2/pictures are two data sets of one name; a resume may find its folder elsewhere."""

    def of(site: str) -> RunConfig:
        options = CONFIG | {"data": {"class_path": "ImageFolder", "init_args": {"root": f"{site}/pictures"}}}
        free = frozenset({"data.init_args.root"})
        return RunConfig(options, Declared(free, str(Path(f"{site}/pictures").resolve())))

    first, second = of("site1"), of("site2")
    assert first.id() != second.id()
    assert second.settings()["data.root"] == str(Path("site2/pictures").resolve())
    run = runs.start(STEM, "a", first)
    run.release()
    runs.resume(STEM, "a", second, "last").release()
    run.summary.write_text("{}")
    with pytest.raises(InputError, match=r"data\.root is .*site2/pictures, but"):
        runs.resume(STEM, "a", second, "last")
    assert runs.resume(STEM, "a", first, "last").finished


def test_what_a_killed_start_left_is_swept():
    STEM.mkdir(parents=True)
    old, young, other = STEM / ".a.123", STEM / ".b.456", STEM / ".hidden"
    for folder in (old, young, other):
        folder.mkdir()
    os.utime(old, (1000, 1000))
    runs.start(STEM, "a", RUN)
    assert not old.exists() and young.exists() and other.exists()


def test_an_option_that_counts_for_one_version_only_may_keep_its_value(tmp_path):
    """A later version leaves the usual value of an option out, and an earlier one did not have the option at all."""

    def config(given, *free):
        options = {"model": {"class_path": "M"}, "data": {"class_path": "D", "init_args": {"size": 8, **given}}}
        return RunConfig(options, Declared(frozenset(f"data.init_args.{name}" for name in free)))

    run = runs.Run(tmp_path)
    refuse_changes(config({"bad": "refuse"}), config({"bad": "refuse"}, "bad"), run)
    refuse_changes(config({}), config({"bad": "refuse"}, "bad"), run)
    for old, new in (({"bad": "refuse"}, {"bad": "skip"}), ({}, {"bad": "skip"})):
        with pytest.raises(InputError, match=r"data\.init_args\.bad is skip"):
            refuse_changes(config(old), config(new), run)
