"""The values that the packages pass to each other."""

import copy

import pytest
import torch
from helpers import batch_of, data_info

from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.values import Batch, BatchNeeds, DataInfo, PlainTimeline, Position, TeacherOutput


def test_plain_training_stands_where_the_trainer_does():
    timeline = PlainTimeline(batches_per_epoch=5, epochs=4)
    assert timeline.position(0, 0) == Position(epoch=0, batch=0, step=0, order=0, schedule_epoch=0.0, epochs=4)
    assert timeline.position(2, 3) == Position(2, 3, 13, 0, 2.6, 4)
    assert timeline.position(2, 3).progress == pytest.approx(0.65)
    assert timeline.position(3, 4).progress < 1


@pytest.mark.parametrize(("together", "steps"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 0, 1, 1, 2, 3]), (9, [0] * 5 + [1])])
def test_the_end_of_an_epoch_completes_a_step(together, steps):
    timeline = PlainTimeline(5, 4, together)
    assert [timeline.position(*divmod(number, 5)).step for number in range(6)] == steps


def test_how_many_views_an_epoch_shows():
    assert BatchNeeds().views_per_epoch == 1
    assert BatchNeeds(views=2).views_per_epoch == 2
    assert BatchNeeds(views=2, pairs_classes=True, repeats_last_batch=True).views_per_epoch == 4


def test_all_of_a_batch_moves():
    batch = batch_of(torch.zeros(2, 1, 2, 2), torch.arange(2), teacher=TeacherOutput(torch.zeros(2, 3)), weight=0.5)
    moved = batch.to("meta")
    assert isinstance(moved, Batch) and isinstance(moved.teacher, TeacherOutput)
    tensors = (moved.images, moved.labels, moved.index, moved.teacher.logits)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.num_new, moved.weight, moved.view, moved.label_probs) == (2, 0.5, None, None)
    assert batch.images.device.type == "cpu"


def test_targets_are_labels_or_their_distributions():
    batch = batch_of(torch.zeros(2, 1, 2, 2), torch.arange(2))
    assert batch.targets is batch.labels
    probs = torch.full((2, 3), 1 / 3)
    assert batch._replace(label_probs=probs).targets is probs


def test_what_data_say_of_themselves_goes_through_a_file_unchanged():
    data = Digits(label_noise=0.1, noise_map={4: 9})
    data.setup("fit")
    torch.save(data.info.as_dict(), "info.pt")
    read = DataInfo.from_dict(torch.load("info.pt", weights_only=True), "info.pt")
    assert read == data.info and hash(read) == hash(data.info)
    assert torch.tensor(read.mean).equal(data.normaliser.mean)
    assert (read.num_classes, read.shape, read.noise) == (10, (1, 8, 8), (0.1, (("4", "9"),), 0))
    assert read.held_out and read.held_out != data_info().held_out


@pytest.mark.parametrize(
    "damage",
    [{"mean": None}, {"channels": "many"}, {"noise": (0.1,)}, {"class_names": 3}, {"noise": (0.1, [("4",)], 0)}],
)
def test_damage_is_told(damage):
    content = data_info().as_dict()
    assert DataInfo.from_dict(copy.deepcopy(content), "x") == data_info()
    with pytest.raises(InputError, match="x.ckpt does not say what data it was trained on"):
        DataInfo.from_dict(content | damage, "x.ckpt")
    for name in content.keys() - {"bit_depth", "unlabelled", "preprocessing"}:  # which earlier versions did not write
        with pytest.raises(InputError, match=f"x.ckpt does not say what data it was trained on: '{name}'"):
            DataInfo.from_dict({k: v for k, v in content.items() if k != name}, "x.ckpt")
