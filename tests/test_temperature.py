"""What the temperature does: values by hand, and the pictures in the documentation."""

import math
from pathlib import Path

import pytest
import torch

from distill_lightning.temperature import (
    EXAMPLE,
    STUDENT,
    cross_entropy_gradient,
    entropies,
    figures,
    gradient,
    limit,
    softened,
)

PAGE = Path(__file__).parent.parent / "docs" / "explanations"
STUDENTS, TEACHERS = torch.tensor([STUDENT], dtype=torch.float64), torch.tensor([EXAMPLE], dtype=torch.float64)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        # exp(-8 / T), exp(-3 / T) and 1, divided by their sum
        (1, (0.000319, 0.047411, 0.952270)),
        (5, (0.115323, 0.313480, 0.571197)),
        (10, (0.205159, 0.338250, 0.456590)),
        (20, (0.264841, 0.340063, 0.395096)),
    ],
)
def test_the_example(temperature, expected):
    assert softened(torch.tensor(EXAMPLE, dtype=torch.float64), temperature).tolist() == pytest.approx(
        expected, abs=2e-6
    )


def test_a_higher_temperature_has_more_entropy_up_to_that_of_chance():
    found = entropies(EXAMPLE, [1, 5, 10, 20, 1e6])
    assert found == sorted(found) and found[-1] == pytest.approx(math.log(3), abs=1e-9)
    by_hand = -sum(p * math.log(p) for p in (0.000319, 0.047411, 0.952270))
    assert found[0] == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 5.0, 20.0])
def test_the_gradient_is_the_difference_of_the_probabilities(temperature):
    difference = softened(STUDENTS, temperature) - softened(TEACHERS, temperature)
    assert torch.allclose(gradient(STUDENTS, TEACHERS, temperature, False), difference / temperature, atol=1e-12)
    assert torch.allclose(gradient(STUDENTS, TEACHERS, temperature, True), difference * temperature, atol=1e-12)


def test_gradients_shrink_with_the_square_of_the_temperature_and_match_logits_at_its_limit():
    ratio = gradient(STUDENTS, TEACHERS, 2000.0, False).norm() / gradient(STUDENTS, TEACHERS, 1000.0, False).norm()
    assert float(ratio) == pytest.approx(0.25, rel=2e-3)
    # (4, 3, 5) - (2, 7, 10) = (2, -4, -5), of mean -7/3
    expected = torch.tensor([[13 / 9, -5 / 9, -8 / 9]], dtype=torch.float64)
    assert torch.allclose(limit(STUDENTS, TEACHERS), expected, atol=1e-12)
    assert torch.allclose(gradient(STUDENTS, TEACHERS, 1e5, True), expected, atol=1e-4)
    two = torch.cat([STUDENTS, STUDENTS]), torch.cat([TEACHERS, TEACHERS])
    assert torch.allclose(limit(*two), torch.cat([expected, expected]) / 2, atol=1e-12)  # the mean over the batch
    assert torch.allclose(gradient(*two, 1e5, True), limit(*two), atol=1e-4)


def test_the_label_has_the_gradient_of_temperature_one():
    expected = softened(STUDENTS, 1) - torch.tensor([[0, 0, 1]])
    assert torch.allclose(cross_entropy_gradient(STUDENTS), expected, atol=1e-12)


def test_the_pictures_are_those_of_the_page():
    for name, plot in figures().items():
        assert f"({name}.svg)" in (PAGE / "temperature.md").read_text(encoding="utf-8")
        drawn = (PAGE / f"{name}.svg").read_text(encoding="utf-8")
        assert plot.title in drawn and all(line.label in drawn for line in plot.lines), name
