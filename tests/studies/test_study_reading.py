"""A study's YAML: variables, and the options that use their values."""

from pathlib import Path

import pytest

from distill_lightning.errors import InputError
from distill_lightning.studies.reading import combinations, fill, read_study
from distill_lightning.studies.resources import Resources, largest, read_resources


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


def test_resources_of_a_run_replace_those_of_the_study():
    path = Path("study.yaml")
    path.write_text(
        "resources: {cores: 2, memory: 8 GB}\n"
        "runs: {a: {config: x.yaml}, b: {config: x.yaml, resources: {cores: 4, gpus: 0, minutes: 1.5}}}"
    )
    a, b = read_study(path).entries.values()
    assert a.resources == Resources(cores=2, memory=8 * 10**9)
    assert b.resources == Resources(cores=4, gpus=0, memory=8 * 10**9, minutes=1.5)
    assert b.resources.reserved() == {"cores": 4, "memory": 8e9}  # no GPU is nothing to wait for
    assert largest([a.resources, b.resources]) == b.resources


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([2], "resources is [2]: give amounts by name"),
        ({"core": 2}, "unknown key core; did you mean cores?"),
        ({"cores": 0}, "cores is 0: expected a whole number of 1 or more"),
        ({"cores": 1.5}, "cores is 1.5"),
        ({"gpus": True}, "gpus is True"),
        ({"gpus": -1}, "gpus is -1: expected a whole number of 0 or more"),
        ({"memory": "much"}, "memory is much: expected a size such as 8 GB"),
        ({"minutes": 0}, "minutes is 0: expected a number above 0"),
        ({"minutes": float("nan")}, "minutes is nan"),
    ],
)
def test_wrong_resources(given, message):
    with pytest.raises(InputError) as error:
        read_resources(given, "study.yaml")
    assert message in str(error.value)
