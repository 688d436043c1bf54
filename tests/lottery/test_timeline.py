"""Positions and lengths of rounds of pruning."""

import pytest

from distill_lightning.errors import InputError
from distill_lightning.lottery.timeline import PruningTimeline, batches_in_steps, batches_of
from distill_lightning.values import PlainTimeline, Position


def of(**options) -> PruningTimeline:
    given = {"start": 0, "skipped": 3, "later": 7, "has_new_orders": True, "stays_at_end": False}
    return PruningTimeline(**{"batches_per_epoch": 4, "first": 10, "rounds": 2, **given, **options})


def test_rounds_are_arithmetic():
    timeline = of()
    assert timeline.total == 24 and timeline.epochs_in_all == 6 and timeline.length == 10
    assert [timeline.round_of(b) for b in (0, 9, 10, 16, 17, 23)] == [(0, 0), (0, 9), (1, 3), (1, 9), (2, 3), (2, 9)]
    assert timeline.position(2, 1) == Position(2, 1, 9, 0, 2.25, 2.5)
    assert timeline.position(2, 2) == Position(0, 3, 3, 1, 0.75, 2.5)  # the eleventh batch: step 3 of round 1
    assert timeline.position(5, 3) == Position(2, 1, 9, 2, 2.25, 2.5)
    assert timeline.position(6, 0) is None


def test_the_first_round_is_plain_training():
    rounds, plain = of(first=12, skipped=0, later=12, batches_per_step=3), PlainTimeline(4, 3.0, 3)
    for batch in range(12):
        assert rounds.position(*divmod(batch, 4)) == plain.position(*divmod(batch, 4))


def test_a_ticket_begins_at_its_step_and_rounds_may_keep_order_and_rate():
    late = of(first=7, start=3)
    assert late.length == 10 and late.total == 21
    assert late.position(0, 0) == Position(0, 3, 3, 0, 0.75, 2.5)
    assert of(has_new_orders=False).position(5, 3).order == 0
    tuned = of(skipped=0, later=10, stays_at_end=True)
    assert tuned.position(2, 1).schedule_epoch == 2.25  # the last of round 0
    assert {tuned.position(*divmod(batch, 4)).schedule_epoch for batch in range(10, 30)} == {2.25}


def test_the_end_of_an_epoch_completes_a_step():
    timeline = of(batches_per_step=3)
    assert [timeline.steps(batches) for batches in range(9)] == [0, 1, 1, 1, 2, 3, 3, 3, 4]


def test_words_for_a_length():
    assert batches_of("5 steps", "length", 4, 3) == 11  # two epochs of two steps each, and three batches
    assert batches_of("1 step", "length", 4, 1) == 1
    assert batches_of("1.5 epochs", "length", 4, 3) == 6
    for words in ("1.5 steps", "some", "5", "-1 steps", "2 epochs more"):
        with pytest.raises(InputError, match=f'Lottery.length is "{words}": give words'):
            batches_of(words, "length", 4, 1)


@pytest.mark.parametrize("together", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("per_epoch", [1, 4, 5, 6])
def test_steps_and_batches_agree(per_epoch, together):
    """Also where the last step of an epoch has fewer batches."""
    timeline = of(batches_per_epoch=per_epoch, batches_per_step=together)
    for steps in range(12):
        batches = batches_in_steps(steps, per_epoch, together)
        assert timeline.steps(batches) == steps
        assert batches == 0 or timeline.steps(batches + 1) == steps + 1
