"""Where configuration files are found, and what they build on."""

from pathlib import Path

import pytest

from distill_lightning.config_files import FOLDER, beside, expand_configs, find, find_shipped, shipped_names, suggestion
from distill_lightning.errors import InputError

NAMES = ["digits/dlb", "digits/dlb.yaml", "configs/digits/dlb.yaml", "./configs/digits/dlb"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_is_found_by_each_of_its_names(name):
    assert find(name) == FOLDER / "digits" / "dlb.yaml"
    assert find_shipped(name) == FOLDER / "digits" / "dlb.yaml"


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_file_of_the_working_folder_comes_first(name):
    own = Path(name).with_suffix(".yaml")
    own.parent.mkdir(parents=True)
    own.write_text("seed_everything: 3\n")
    assert find(name) == own


@pytest.mark.parametrize(
    "name", ["", ".", "digits", "dlb", "../configs/digits/dlb", "/digits/dlb", "a: 1\nb: 2\n", 5000 * "x"]
)
def test_other_names_stand_for_no_shipped_file(name):
    assert find(name) is None
    assert expand_configs(["fit", "--config", name]) == ["fit", "--config", name]


def test_every_shipped_file_has_a_name():
    assert {FOLDER / f"{name}.yaml" for name in shipped_names()} == set(FOLDER.rglob("*.yaml"))


def test_a_missing_file_gets_a_suggestion():
    assert suggestion(Path("configs/digits/dlbb.yaml")) == "; did you mean digits/dlb?"
    assert suggestion(Path.cwd() / "digits" / "dlbb") == "; did you mean digits/dlb?"
    assert suggestion(Path("nothing/like/it")) == ""


@pytest.mark.parametrize(
    "given", [["--config", "digits/baseline"], ["--config=digits/baseline"], ["-c", "digits/baseline"]]
)
def test_each_way_to_give_a_file_is_expanded(given):
    path = str(FOLDER / "digits" / "baseline.yaml")
    assert expand_configs(["fit", *given, "--name", "a"]) == ["fit", "--config", path, "--name", "a"]


def test_other_arguments_are_left_as_they_are():
    args = ["fit", "--trainer.max_epochs=1", "--name", "digits/baseline", "--config"]
    assert expand_configs(args) == args


def test_a_file_is_given_after_what_it_builds_on():
    Path("own").mkdir()
    Path("own/first.yaml").write_text("base: digits/baseline\nname: first  # kept as it is\n")
    Path("own/second.yaml").write_text("# the second\nbase: first.yaml  # beside it\nname: second\nx: 1e-3\n")
    expanded = expand_configs(["--config", "own/second"])
    baseline = str(FOLDER / "digits" / "baseline.yaml")
    texts = ["name: first  # kept as it is\n", "# the second\nname: second\nx: 1e-3\n"]
    assert expanded == ["--config", baseline, "--config", texts[0], "--config", texts[1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nothing.yaml\n", "builds on nothing.yaml, and there is no file"),
        ("base: digits/baselin\n", "did you mean digits/baseline?"),
        ("base: [a, b]\n", "expected the name of one file"),
        ("base:\n", "expected the name of one file"),
        ("base: other.yaml\n", "builds on itself"),
        ("base: a\n\t- b\n", "is not a YAML file"),
    ],
)
def test_a_wrong_base_is_one_line(text, message):
    Path("one.yaml").write_text(text)
    Path("other.yaml").write_text("base: one.yaml\n")
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        expand_configs(["--config", "one.yaml"])


def test_a_file_named_by_another_lies_beside_it_or_is_shipped():
    Path("own").mkdir()
    Path("own/a.yaml").touch()
    study = Path("own/study.yaml")
    assert beside(study, "a.yaml") == Path("own/a.yaml")
    assert beside(study, "digits/dlb") == FOLDER / "digits" / "dlb.yaml"
    assert beside(study, "../digits/dlb.yaml") == Path("own/../digits/dlb.yaml")
