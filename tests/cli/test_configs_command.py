"""The command ``distill configs``, and shipped files given to the other verbs from an empty folder."""

from pathlib import Path

import pytest
import yaml
from helpers import CONFIGS, distill

from distill_lightning.config_files import shipped_names

QUICK = {"studies/quick", *(f"digits/{name}" for name in ("baseline", "dlb", "ensemble", "kd", "teacher"))}


def test_all_files_are_listed_by_folder(capsys):
    assert distill("configs") == 0
    blocks = [block.splitlines() for block in capsys.readouterr().out.strip().split("\n\n")]
    listed = {line.split()[0]: line.split(None, 1)[1:] for block in blocks for line in block}
    assert sorted(listed) == shipped_names()
    assert all(len({line.split("/")[0] for line in block}) == 1 for block in blocks)
    assert all(comment for comment in listed.values()), "a file without a first line that says what it is"


def test_a_folder_is_listed(capsys):
    assert distill("configs", "configs/digits") == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [name for name in shipped_names() if name.startswith("digits/")]


@pytest.mark.parametrize("name", ["digits/dlb", "configs/digits/dlb.yaml"])
def test_a_file_is_printed(name, capsys):
    assert distill("configs", name) == 0
    assert capsys.readouterr().out == (CONFIGS / "digits" / "dlb.yaml").read_text()


def test_a_copy_comes_with_what_it_names(capsys):
    assert distill("configs", "studies/quick", "--copy", "mine") == 0
    copied = {
        Path(line).relative_to("mine").with_suffix("").as_posix() for line in capsys.readouterr().out.splitlines()
    }
    assert copied == QUICK
    for name in copied:
        assert Path("mine", f"{name}.yaml").read_text() == (CONFIGS / f"{name}.yaml").read_text()
    assert distill("configs", "studies/quick", "--copy", "mine") == 0  # equal files may be there
    Path("mine/digits/kd.yaml").write_text("seed_everything: 1\n")
    Path("mine/digits/dlb.yaml").unlink()
    assert distill("configs", "studies/quick", "--copy", "mine") == 2
    assert "kd.yaml is there already, and differs" in capsys.readouterr().err
    assert Path("mine/digits/kd.yaml").read_text() == "seed_everything: 1\n"
    assert not Path("mine/digits/dlb.yaml").exists()


def test_all_files_can_be_copied():
    assert distill("configs", "--copy", "mine") == 0
    assert (
        sorted(file.relative_to("mine").with_suffix("").as_posix() for file in Path("mine").rglob("*.yaml"))
        == shipped_names()
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["configs", "digits/dlbb"], "did you mean digits/dlb?"),
        (["configs", "digitz"], "did you mean digits?"),
        (["configs", "nothing"], "distill configs lists them"),
        (["configs", "a", "b"], "unrecognized arguments: b"),
        (["fit", "--config", "configs/digits/dlbb.yaml"], "there is no file"),
        (["fit", "--config", "configs/digits/dlbb.yaml"], "did you mean digits/dlb?"),
        (["study", "studies/quik"], "there is no study studies/quik; did you mean studies/quick?"),
    ],
)
def test_wrong_names_are_one_line(given, message, capsys):
    assert distill(*given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_shipped_file_is_fitted_and_tested_from_an_empty_folder():
    small = ["--trainer.max_epochs", 1, "--data.train_part", 128]
    assert distill("fit", "--config", "digits/dlb", *small) == 0
    run = Path("logs/digits/dlb/convnet-seed0")
    assert "base" not in yaml.safe_load((run / "config.yaml").read_text())
    assert distill("validate", "--config", "digits/dlb.yaml", "--ckpt_path", "last") == 0
    assert distill("test", "--config", "configs/digits/dlb.yaml", "--ckpt_path", "last") == 0
    assert distill("bench", "--config", "digits/dlb", "--turns", 2, "--steps", 1) == 0


@pytest.mark.parametrize("name", ["quick", "studies/quick", "configs/studies/quick.yaml"])
def test_a_shipped_study_is_planned_from_an_empty_folder(name, capsys):
    assert distill("study", name, "--dry_run") == 0
    assert " 7 runs, 0 done" in capsys.readouterr().out


def test_a_study_of_ones_own_may_name_shipped_files(capsys):
    study = {"runs": {"one": {"config": ["digits/kd", "callbacks/consistency"], "for": {"seed": 2}}}}
    Path("own.yaml").write_text(yaml.safe_dump(study))
    assert distill("study", "own.yaml", "--dry_run") == 0
    assert capsys.readouterr().out.count("digits/kd.yaml --config") == 2
