"""A study's YAML: variables, and the options that use their values."""

import pytest

from distill_lightning.errors import InputError
from distill_lightning.studies.reading import combinations, fill


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
