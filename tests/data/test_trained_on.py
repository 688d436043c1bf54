"""A data module evaluates each checkpoint with the statistics that its own network was trained with."""

import dataclasses

import pytest
import torch

from distill_lightning.data.digits import Digits
from distill_lightning.data.provenance import refuse_other, refuse_seen
from distill_lightning.errors import InputError
from distill_lightning.values import TrainedOn


def trained_on(data: Digits, mean: float) -> TrainedOn:
    return TrainedOn(dataclasses.replace(data.info, mean=(mean,)), data.held_out)


def test_each_checkpoint_has_its_own_statistics():
    data = Digits()
    data.setup("fit")
    own = data.normaliser.mean.clone()
    seen = []
    for mean in (0.25, 0.75):
        data.trained_on = trained_on(data, mean)
        data.setup("test")
        seen.append(next(iter(data.test_dataloader())).images)
        assert data.normaliser.mean.tolist() == [mean]
    std = data.normaliser.std
    assert torch.allclose(seen[0] - seen[1], (0.5 / std).expand_as(seen[0]), atol=1e-5)
    data.trained_on = None
    data.setup("fit")
    assert torch.equal(data.normaliser.mean, own)


def test_other_pictures_are_refused_and_seen_ones_too():
    data, other = Digits(), Digits(split_seed=1)
    for one in (data, other):
        one.setup("fit")
    refuse_other(data.info, trained_on(other, 0.5))  # another split of the same pictures
    with pytest.raises(InputError, match="are not those that this run was trained on"):
        refuse_other(data.info, TrainedOn(dataclasses.replace(data.info, fingerprint="x"), data.held_out))
    with pytest.raises(InputError, match="was trained on 1.. of the 144 validation pictures"):
        refuse_seen(data.info, data.held_out, trained_on(other, 0.5), "the teacher")
    refuse_seen(data.info, data.held_out, trained_on(data, 0.5), "the teacher")
