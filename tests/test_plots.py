"""Plots as SVG: axes, points, and points that are left out."""

import math
import warnings
from xml.etree import ElementTree

from distill_lightning.plots import Line, Plot, number

NAMESPACE = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    root = ElementTree.fromstring(picture)
    return [element.text or "" for element in root.iter(f"{NAMESPACE}text")]


def test_a_plot_is_a_picture():
    lines = [Line("a <b>", [1, 2, 4], [0.5, math.nan, 0.7], [0.1, None, None]), Line("c", [1, 2], [0.1, 0.2])]
    plot = Plot("t & u", lines, "x", "y", log_x=True)
    assert plot.drawn()[0][2] == [(1, 0.5, 0.1), (4, 0.7, 0.0)]  # the point that is not a number is left out
    words = texts(plot.svg())
    assert {"t & u", "x", "y", "a <b>", "c", "1", "2", "4"} <= set(words)
    assert texts(Plot("", [], "", "").svg())


def test_the_same_plot_is_the_same_text():
    plot = Plot("t", [Line("a", [1, 2], [0.5, 0.25])], "x", "y")
    assert plot.svg() == plot.svg()


def test_a_logarithm_leaves_out_what_has_none():
    plot = Plot("", [Line("a", [0, 1, 10], [1.0, 2.0, 3.0])], "", "", log_x=True)
    assert [x for x, _, _ in plot.drawn()[0][2]] == [1, 10]


def test_names_are_text_and_no_formulas():
    """Of matplotlib's: $...$ is mathematics, a label with "_" in front is hidden; and XML has no control characters."""
    labels = ["$x^2$", "_hidden", "$\\frac", "a\x1b[31m\0", "\udcff", "--><script>"]
    plot = Plot("$t$ \x07 -->", [Line(label, [1, 2], [k, k]) for k, label in enumerate(labels)], "$", "_$y$")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = texts(plot.svg())
    assert {"$x^2$", "$\\frac", "--><script>", "$"} <= set(words)
    assert any("hidden" in word for word in words)


def test_numbers():
    written = [number(value) for value in (0.123456, -2.5, 12345.6, 1e100)]
    assert written == ["0.1235", "\N{MINUS SIGN}2.5", "12,346", "1e+100"]


def test_bars_with_long_names_lie():
    """Long names stand on the left, one below the other, as they were given; short ones stand below the bars."""

    def places(names: list[str]) -> list[tuple[float, float]]:
        plot = Plot("t", [Line("", range(len(names)), [3.0, 1.0, 2.0])], "", "gain", bars=names)
        assert plot.lies == (len("".join(names)) > 40)
        root = ElementTree.fromstring(plot.svg())
        found = {element.text: element for element in root.iter(f"{NAMESPACE}text")}
        assert "gain" in found
        return [(float(found[name].attrib["x"]), float(found[name].attrib["y"])) for name in names]

    long = places(["distilled from the ensemble", "a control of it", "none"])
    assert [y for _, y in long] == sorted(y for _, y in long) and long[0][1] < long[1][1]
    short = places(["one", "two", "three"])
    assert len({round(y) for _, y in short}) == 1 and short[0][0] < short[1][0] < short[2][0]
