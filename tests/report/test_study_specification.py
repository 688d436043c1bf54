"""Tables and figures of a study that are refused before anything is trained."""

from pathlib import Path

import pytest

from distill_lightning.errors import InputError
from distill_lightning.report.check import SpecChecker

VARIABLES = {
    "ensemble": [{"repetition": r} for r in range(2)],
    "single": [{"repetition": r, "member": m} for r in range(2) for m in range(3)],
}


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
            "the variable member, which ensemble does not have",
        ),
        ({"figures": [{"run": ["single", "ensemble"], "y": "a", "x": "member"}]}, "which ensemble does not have"),
        ({"figures": [{"run": "single", "y": "a", "x": "member", "log_x": True}]}, "expected numbers it can show"),
        ({"figures": [{"run": [["single"]], "y": "a"}]}, "unknown run"),
        ({"tables": [{"rows": [{"run": "single"}], "columns": ["rounds/7"]}]}, "as rounds/7/test_accuracy"),
    ],
)
def test_wrong_tables_are_refused_before_anything_is_run(part, message):
    checker = SpecChecker(Path("study.yaml"), VARIABLES)
    with pytest.raises(InputError, match=message) as error:
        checker.tables(part.get("tables"))
        checker.figures(part.get("figures"))
    assert "\n" not in str(error.value)
