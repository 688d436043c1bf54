"""Means over a window and over an epoch."""

import math

import pytest
import torch
from helpers import batch_of

from distill_lightning.running_means import RunningMeans, right_answers, shared_out
from distill_lightning.values import Batch, StepOutput

LABELS = torch.tensor([0, 1, 2, 2])


def batch(count: int = 4, **more) -> Batch:
    return batch_of(torch.zeros(count, 1, 2, 2), LABELS[:count], **more)


def step(means: RunningMeans, ce: float, answers: list[int], given: Batch | None = None) -> None:
    given = given or batch()
    logits = torch.nn.functional.one_hot(torch.tensor(answers), 3).float()
    means.add(given, StepOutput({"ce": torch.tensor(ce)}, logits), torch.tensor(ce))


def test_agreement_with_the_teacher_is_of_all_rows():
    means = RunningMeans()
    for agrees in ([True, True, False], [True]):
        loss = torch.tensor(1.0)
        means.add(batch(), StepOutput({"ce": loss}, torch.zeros(4, 3), torch.tensor(agrees)), loss)
    assert means.close_window()["agreement"] == 3 / 4
    step(means, 1.0, [0, 0, 0, 0])
    assert "agreement" not in means.close_window()
    assert means.close_epoch()["epoch_agreement"] == 3 / 4


def test_windows_are_part_of_their_epoch():
    means = RunningMeans()
    step(means, 1.0, [0, 0, 0, 0])
    step(means, 2.0, [0, 1, 0, 0])
    assert means.mean_loss() == 1.5
    assert means.close_window() == {"loss_ce": 1.5, "loss": 1.5, "loss_max": 2.0, "loss_std": 0.5, "accuracy": 3 / 8}
    assert means.close_window() == {}
    step(means, 6.0, [0, 1, 2, 2])
    assert means.mean_loss() == 3.0
    assert means.close_window() == {"loss_ce": 6.0, "loss": 6.0, "loss_max": 6.0, "loss_std": 0.0, "accuracy": 1.0}
    spread = {"epoch_loss_max": 6.0, "epoch_loss_std": math.sqrt(14 / 3)}
    epoch = {"epoch_loss_ce": 3.0, "epoch_loss": 3.0, "epoch_accuracy": 7 / 12, "exposures": 12} | spread
    assert means.close_epoch() == pytest.approx(epoch)
    assert means.mean_loss() is None
    step(means, 1.0, [0, 0, 0, 0])
    means.close_window()
    spread = {"epoch_loss_max": 1.0, "epoch_loss_std": 0.0}
    epoch = {"epoch_loss_ce": 1.0, "epoch_loss": 1.0, "epoch_accuracy": 0.25, "exposures": 16} | spread
    assert means.close_epoch() == epoch


def test_rows_that_are_not_new_are_exposures_and_no_answers():
    means = RunningMeans()
    step(means, 1.0, [0, 1], batch(4, num_new=2))
    assert means.close_window()["accuracy"] == 1.0
    assert means.close_epoch()["exposures"] == 4


def test_shares_of_another_size_weigh_by_their_weight():
    means = RunningMeans()
    step(means, 4.0, [0, 1, 2, 2], batch(weight=0.5))
    window = means.close_window()
    assert window == {"loss_ce": 2.0, "loss": 2.0, "loss_max": 4.0, "loss_std": 2.0, "accuracy": 1.0}
    step(means, 9.0, [0], batch(1, weight=0.0))  # a process with nothing to do takes the step, and nothing counts
    step(means, 4.0, [1, 1, 1, 1], batch())
    window = means.close_window()
    assert window == {"loss_ce": 2.0, "loss": 2.0, "loss_max": 4.0, "loss_std": 2.0, "accuracy": 0.25}
    assert means.close_epoch()["exposures"] == 8


def test_terms_may_come_later():
    means = RunningMeans()
    step(means, 1.0, [0, 0, 0, 0])
    output = StepOutput({"ce": torch.tensor(1.0), "late": torch.tensor(3.0)}, torch.zeros(4, 3))
    means.add(batch(), output, torch.tensor(4.0))
    window = means.close_window()
    assert (window["loss"], window["loss_ce"], window["loss_late"]) == (2.5, 1.0, 1.5)


@pytest.mark.parametrize(("together", "first"), [(1, 8), (2, 9)])
def test_the_first_step_that_is_not_finite_is_named(together, first):
    means = RunningMeans()
    means.raise_if_not_finite(10, together)
    step(means, 1.0, [0, 0, 0, 0])
    means.raise_if_not_finite(7, together)
    for value in (float("inf"), 1.0, float("nan")):
        step(means, value, [0, 0, 0, 0])
    with pytest.raises(FloatingPointError, match=f"not finite from step {first} on"):
        means.raise_if_not_finite(10, together)


def test_sums_go_on_from_a_checkpoint():
    means, other = RunningMeans(), RunningMeans()
    step(means, 1.0, [0, 0, 0, 0])
    means.close_window()
    step(means, 2.0, [0, 1, 0, 0])
    torch.save(means.state_dict(), "means.pt")
    other.load_state_dict(torch.load("means.pt", weights_only=True))
    step(means, 3.0, [0, 1, 0, 0])  # what was saved is not what goes on
    for one in (means, other):
        if one is other:
            step(one, 3.0, [0, 1, 0, 0])
        assert one.close_window()["loss"] == 2.5
        assert one.close_epoch() == pytest.approx({
            "epoch_loss_ce": 2.0, "epoch_loss": 2.0, "epoch_loss_max": 3.0, "epoch_loss_std": math.sqrt(2 / 3),
            "epoch_accuracy": 5 / 12, "exposures": 12,
        })  # fmt: skip


def test_what_counts_as_right():
    predicted = torch.tensor([0, 1, 0, 0])
    assert right_answers(predicted, batch()) == {"right": 2}
    wrong = right_answers(predicted, batch(clean_labels=torch.tensor([0, 0, 0, 2])))
    assert wrong == {"right": 2, "flipped": 2, "memorised": 1, "recovered": 1}
    probs = torch.tensor([[0.4, 0.6, 0.0], [0.4, 0.6, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert right_answers(predicted, batch(label_probs=probs)) == {"right": 2}  # the larger share of a mixture
    assert right_answers(predicted[:2], batch(num_new=2)) == {"right": 2}


def test_sums_go_on_with_another_number_of_processes():
    """A step of theirs weighs as one of the new ones; all hold the same sums, which are added by their order."""

    def sums(loss: float, late: float) -> dict:
        window = {"loss": torch.tensor(loss), "loss_late": torch.tensor(late), "right": torch.tensor(3)}
        window |= {"squares": torch.tensor(loss**2), "worst": torch.tensor(loss)}
        return {"window": window | {"steps": 4, "fresh": 8, "rows": 16}, "epoch": {}, "exposures": 100}

    shares = [shared_out([sums(1.0, 0.5), sums(3.0, 1.5)], rank, 3) for rank in range(3)]
    whole = {k: float(sum(share["window"][k] for share in shares)) for k in shares[0]["window"]}
    assert whole.pop("worst") == 9.0  # each has the largest, 3
    sums_of_steps = {"loss": 6.0, "loss_late": 3.0, "squares": 15.0, "steps": 12.0}
    assert whole == sums_of_steps | {"right": 6.0, "fresh": 16.0, "rows": 32.0}
    assert all(list(share["window"]) == list(shares[0]["window"]) and share["exposures"] == 100 for share in shares)
