"""Rendering: from stored pictures to the input of the network."""

import pytest
import torch

from distill_lightning.data.augment import RandomCrop
from distill_lightning.data.mixing import CutMix, Mixup
from distill_lightning.data.plans import BatchPlan
from distill_lightning.data.rendering import Normaliser, Renderer

IMAGES = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MEAN, STD = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.3, 0.4])
INDEX = torch.arange(40)
TAKEN = torch.arange(5, 30)


def renderer(mixing=None, transforms=(), views_per_epoch: int = 1) -> Renderer:
    return Renderer(Normaliser(MEAN, STD), transforms, mixing, 3, views_per_epoch, TAKEN)


def rendered(made: Renderer, index: torch.Tensor, view: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    plan = made.plan(index, torch.full_like(index, view))
    return made.render(IMAGES[plan.fetched], plan)


def test_a_normaliser_is_its_formula():
    expected = (IMAGES.double() / 255 - MEAN[:, None, None].double()) / STD[:, None, None].double()
    normalised = Normaliser(MEAN, STD)(IMAGES)
    assert normalised.dtype == torch.float32
    assert torch.allclose(normalised.double(), expected, atol=1e-6)


def test_a_plan_for_evaluation_takes_rows_as_they_are():
    plan = BatchPlan.of_rows(INDEX[3:7])
    assert plan.fetched.equal(INDEX[3:7]) and plan.num_new == 4 and plan.weight == 1.0
    assert plan.partner is None


@pytest.mark.parametrize("mixing", [None, Mixup(), CutMix()])
def test_a_picture_is_a_function_of_view_and_index(mixing):
    made = renderer(mixing, [RandomCrop(2)])
    whole, share = rendered(made, INDEX, 4)
    some = torch.tensor([17, 3, 30])
    alone, its_share = rendered(made, some, 4)
    assert alone.equal(whole[some])
    assert (share is None) == (mixing is None)
    assert share is None or its_share.equal(share[some])
    assert not rendered(made, INDEX, 5)[0].equal(whole)


def test_without_mixing_only_the_batch_is_fetched():
    plan = renderer().plan(INDEX[:4], torch.zeros(4, dtype=torch.long), num_new=2, weight=0.5)
    assert plan.fetched.equal(INDEX[:4]) and (plan.num_new, plan.weight) == (2, 0.5)
    assert rendered(renderer(), INDEX, 0)[0].equal(Normaliser(MEAN, STD)(IMAGES))


def test_partners_are_training_samples_and_pictures_are_mixed_with_them():
    made = renderer(Mixup())
    plan = made.plan(INDEX, torch.zeros_like(INDEX))
    assert torch.isin(plan.partner, TAKEN).all() and plan.fetched.equal(torch.cat([INDEX, plan.partner]))
    assert plan.num_new == 40
    images, share = made.render(IMAGES[plan.fetched], plan)
    own, other = (Normaliser(MEAN, STD)(IMAGES[rows]) for rows in (INDEX, plan.partner))
    assert torch.allclose(images, torch.lerp(other, own, share[:, None, None, None]), atol=1e-5)


def test_all_views_of_an_epoch_are_of_one_mixture():
    made = renderer(CutMix(), views_per_epoch=2)
    first, second, third = (made.plan(INDEX, torch.full_like(INDEX, view)) for view in (4, 5, 6))
    assert first.partner.equal(second.partner) and not first.partner.equal(third.partner)
    assert rendered(made, INDEX, 4)[1].equal(rendered(made, INDEX, 5)[1])
