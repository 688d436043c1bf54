"""Joint inference of a generalist and its specialists: golden values, a general solver, and what must hold."""

import pytest
import torch

from distill_lightning.joint import Evidence, closed_form, evidence, joint_probs, objective


def golden(*active: bool) -> Evidence:
    """Four classes, and two specialists that share class 1."""
    special = torch.tensor([[[0.2, 0.6, 0.0, 0.0], [0.0, 0.5, 0.3, 0.0]]], dtype=torch.float64)
    return Evidence(
        torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64),
        special,
        torch.tensor([[0.2, 0.2]], dtype=torch.float64),
        torch.tensor([active]),
        special[0] > 0,
    )


@pytest.mark.parametrize(
    ("active", "probs", "least", "before"),
    [
        (
            (True, True),
            [0.253806647947, 0.466666666667, 0.218865812274, 0.060660873112],
            0.156128082524,
            0.389960048543,
        ),
        ((True, False), [0.3, 0.45, 1 / 6, 1 / 12], 0.095017275174, 0.196165850602),
        ((False, False), [0.4, 0.3, 0.2, 0.1], 0.0, 0.0),
    ],
)
def test_golden_values(active, probs, least, before):
    given = golden(*active)
    found = joint_probs(given, gap=1e-13)
    assert found.probs[0].tolist() == pytest.approx(probs, abs=1e-10)
    assert float(objective(found.probs, given)) == pytest.approx(least, abs=1e-11)
    assert float(objective(given.general, given)) == pytest.approx(before, abs=1e-11)
    assert float(found.gap) <= 1e-13
    assert found.steps == {0: 0, 1: 1}.get(sum(active), found.steps) <= 60


def made(rows: int = 12, classes: int = 12, specialists: int = 5, size: int = 4, seed: int = 0) -> Evidence:
    """Specialists that are the generalist with noise, of overlapping sets; the first row has no active one."""
    draw = torch.Generator().manual_seed(seed)
    general = 2 * torch.randn(rows, classes, generator=draw, dtype=torch.float64)
    special = general[:, None] + torch.randn(rows, specialists, classes, generator=draw, dtype=torch.float64)
    members = torch.zeros(specialists, classes, dtype=torch.bool)
    for number in range(specialists):
        members[number, torch.randperm(classes, generator=draw)[:size]] = True
    active = torch.rand(rows, specialists, generator=draw) < 0.6
    active[0] = False
    return evidence(general, special, active, members)


def by_newton(given: Evidence) -> torch.Tensor:
    """A general solver: Newton's method on softmax logits, with derivatives by autograd, one picture at a time."""
    solved = []
    for row in range(len(given.general)):
        one = Evidence(*(part[row : row + 1] for part in given[:4]), given.members)

        def lost(free: torch.Tensor, one: Evidence = one) -> torch.Tensor:
            logits = torch.cat([free, free.new_zeros(1)])  # a constant added to all logits changes nothing
            return objective(logits.softmax(0)[None], one)[0]

        free = (one.general[0, :-1] / one.general[0, -1]).log()
        for _ in range(100):
            gradient = torch.autograd.functional.jacobian(lost, free)
            if gradient.abs().max() < 1e-13:
                break
            curvature = torch.autograd.functional.hessian(lost, free)
            values, vectors = torch.linalg.eigh(curvature)  # not convex in logits: it goes down on every axis
            step = vectors @ ((vectors.T @ gradient) / values.abs().clamp(min=1e-12))
            size = 1.0
            while size > 1e-9 and lost(free - size * step) > lost(free):
                size /= 2
            free = free - size * step
        solved.append(torch.cat([free, free.new_zeros(1)]).softmax(0))
    return torch.stack(solved)


def test_it_agrees_with_a_general_solver():
    given = made()
    found = joint_probs(given, gap=1e-13)
    assert torch.allclose(found.probs, by_newton(given), rtol=0, atol=1e-8)
    assert bool((found.gap <= 1e-13).all())
    assert torch.allclose(found.probs.sum(1), torch.ones(len(found.probs), dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_gap_is_proven_and_the_objective_never_rises():
    given = made(seed=1)
    least = objective(joint_probs(given, gap=1e-13).probs, given)
    before = objective(given.general, given)
    for steps in range(1, 12):
        found = joint_probs(given, gap=0.0, most_steps=steps)
        now = objective(found.probs, given)
        assert bool((now <= before + 1e-12).all())
        assert bool((now - least <= found.gap + 1e-12).all())
        before = now


def test_one_active_specialist_has_a_closed_form():
    given = made(seed=2)
    for number in range(5):
        alone = given._replace(active=torch.zeros_like(given.active))
        alone.active[:, number] = True
        found = joint_probs(alone, gap=1e-12)
        members = given.members[number].expand(len(given.general), -1)
        closed = closed_form(given.general, given.special[:, number], given.dustbin[:, number], members)
        assert found.steps == 1
        assert torch.allclose(found.probs, closed, rtol=0, atol=1e-14)


def test_without_specialists_nothing_changes_by_a_bit():
    given = made()
    assert torch.equal(joint_probs(given).probs[0], given.general[0])


def test_specialists_that_say_the_same_as_the_generalist_change_nothing():
    general = torch.randn(6, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    given = evidence(general, general[:, None].repeat(1, 5, 1), torch.ones(6, 5, dtype=torch.bool), made().members)
    found = joint_probs(given, gap=1e-12)
    assert found.steps == 0
    assert torch.allclose(found.probs, general.softmax(1), rtol=0, atol=1e-14)
    assert objective(found.probs, given).abs().max() < 1e-12


def test_the_order_does_not_matter_and_a_second_copy_counts():
    given = made(seed=4)
    turned = Evidence(given.general, *(part.flip(1) for part in given[1:4]), given.members.flip(0))
    first, second = joint_probs(given, gap=1e-13).probs, joint_probs(turned, gap=1e-13).probs
    assert torch.allclose(first, second, rtol=0, atol=1e-9)
    twice = Evidence(
        given.general, *(torch.cat([part, part[:, :1]], 1) for part in given[1:4]), given.members[[*range(5), 0]]
    )
    rows = given.active[:, 0]
    third = joint_probs(twice, gap=1e-13).probs
    assert (third[rows] - first[rows]).abs().max() > 1e-3
    assert torch.allclose(third[~rows], first[~rows], rtol=0, atol=1e-9)


def test_a_certain_generalist_leaves_finite_numbers():
    general = torch.tensor([[2000.0, 0.0, -2000.0, 0.0]])
    special = torch.tensor([[[0.0, 0.0, 3.0, 0.0]]])
    members = torch.tensor([[True, True, False, False]])
    found = joint_probs(evidence(general, special, torch.ones(1, 1, dtype=torch.bool), members), gap=1e-9)
    assert bool(found.probs.isfinite().all())
    assert float(found.probs.sum()) == pytest.approx(1.0, abs=1e-9)
    assert float(found.gap) <= 1e-9
