"""Numbers of reports: statistics, units, tables."""

import csv
import io
import math

import pytest

from distill_lightning.report.statistics import mean, std, t_interval
from distill_lightning.report.tables import Table
from distill_lightning.report.units import Unit, spread_text


def test_statistics():
    """Student's quantile for 4 degrees of freedom is 2.776."""
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    assert mean(values) == 4
    assert std(values) == pytest.approx(math.sqrt(50 / 4))
    low, high = t_interval(values)
    half = 2.7764451 * math.sqrt(50 / 4) / math.sqrt(5)
    assert (low, high) == pytest.approx((4 - half, 4 + half), rel=1e-6)
    assert std([1.0]) is None and t_interval([1.0]) is None


def test_numbers_as_people_write_them():
    percent = Unit("test/accuracy")
    assert spread_text([percent(v) for v in (0.94, 0.95)], percent) == "94.50 ± 0.71"
    errors = Unit("test/accuracy", "errors of 10000")
    assert spread_text([errors(0.9854)], errors) == "146.0"
    assert errors.text(errors.difference(0.001)) == "−10.0"  # more accuracy is fewer errors
    assert spread_text([1234.0, 1234.0], Unit("parameters")) == "1,234"
    assert spread_text([], percent) == ""
    speed = Unit("train/samples_per_s")
    assert (speed.text(speed(1297.4)), speed.words) == ("1,297", "")  # not seconds
    assert spread_text([1.0, 2.0, 3.0], Unit("x"), interval=True) == "2.000 [−0.484, 4.484]"
    with pytest.raises(ValueError, match="expected percent"):
        Unit("x", "per mille")


def test_a_table_in_three_forms():
    table = Table("T", ["", "a|b"], [["x", "1 < 2"]], "said")
    assert table.to_markdown() == "### T\n\n|  | a\\|b |\n| --- | --- |\n| x | 1 < 2 |\n\nsaid\n"
    assert list(csv.reader(io.StringIO(table.to_csv()))) == [["", "a|b"], ["x", "1 < 2"]]
    assert ">1 &lt; 2</td>" in table._repr_html_()


def test_a_table_on_a_terminal():
    """Names begin in the same column, numbers end in the same one, and nothing moves the cursor."""
    table = Table("", ["", "name", "n"], [["a\x1b[2J", "DLB", "5"], ["long\nname", "KD", "1,234"]])
    assert str(table) == (
        "|           | name |     n |\n"
        "| --------- | ---- | ----- |\n"
        "| a\\x1b[2J  | DLB  |     5 |\n"
        "| long name | KD   | 1,234 |\n"
    )


def test_a_table_in_a_notebook_is_escaped():
    bad = "<script>alert(1)</script>"
    text = Table(bad, ["", bad], [[bad, bad]], bad)._repr_html_()
    assert "<script" not in text and text.count("&lt;script&gt;") == 6  # title and its label, header, cells, note
    assert '<th scope="col">' in text and '<th scope="row">' in text
