"""Plots as SVG: axes, points, and points that are left out."""

import math
from xml.etree import ElementTree

import pytest

from distill_lightning.plots import Line, plot, ticks


def test_ticks_are_round_and_within():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(93.2, 95.1) == pytest.approx([93.5, 94, 94.5, 95])
    assert ticks(2, 2) == [2]


def test_a_plot_is_a_picture():
    lines = [Line("a <b>", [1, 2, 4], [0.5, math.nan, 0.7], [0.1, None, None]), Line("c", [1, 2], [0.1, 0.2])]
    root = ElementTree.fromstring(plot("t & u", lines, "x", "y", log_x=True))
    shapes = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert shapes.count("polyline") == 2 and shapes.count("polygon") == 1
    assert shapes.count("circle") == 4  # the point that is not a number is left out
    path = next(e for e in root.iter() if e.tag.endswith("polyline")).get("points").split()
    (x0, y0), (x1, y1) = ([float(n) for n in point.split(",")] for point in path)
    assert x0 < x1 and y0 > y1  # up is more
    ElementTree.fromstring(plot("", [], "", ""))


def test_a_logarithm_leaves_out_what_has_none():
    picture = plot("", [Line("a", [0, 1, 10], [1.0, 2.0, 3.0])], "", "", log_x=True)
    assert picture.count("<circle") == 2 and "nan" not in picture
