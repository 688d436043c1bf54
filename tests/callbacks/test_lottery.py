"""Rounds of pruning in one fit: which weights are pruned, rewound and zero, and how an interrupted fit is resumed."""

import csv
import itertools
import json
import random
import shutil
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from helpers import (
    CONFIGS,
    Kill,
    assert_same_run,
    bare_trainer,
    distill,
    events,
    fit,
    kill_and_resume,
    load,
    make,
    run_on,
    same,
)

from distill_lightning import masks as masking
from distill_lightning.callbacks import lottery as callback
from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.checkpoints import open_network
from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.lottery.at_start import masks_at_start
from distill_lightning.lottery.packing import load_packed
from distill_lightning.lottery.tickets import Ticket
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.dlb import DLB
from distill_lightning.models.convnet import ConvNet
from distill_lightning.optimizers import FineTuning
from distill_lightning.preprocessing import GCN
from distill_lightning.report.records import Record
from distill_lightning.report.tickets import masks as report_masks
from distill_lightning.schedules import Cosine, MultiStep
from distill_lightning.values import BatchNeeds

LOTTERY = CONFIGS / "callbacks" / "lottery.yaml"
AT_START = ["--trainer.callbacks.rounds", "0", "--trainer.callbacks.at_start", "snip"]
AT_START += ["--trainer.callbacks.density", "0.1"]


class Watch(pl.Callback):
    """What the network is before and after each step."""

    def __init__(self) -> None:
        self.starts, self.lrs, self.indices, self.images, self.norms, self.losses = [], [], [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.starts.append({k: v.detach().clone() for k, v in pl_module.model.state_dict().items()})
        self.indices.append(batch.index.clone())
        self.images.append(batch.images.clone())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.lrs.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.losses.append(float(outputs["loss"]))


def train(lottery: Lottery, method=None, epochs: int = 2, watch: Watch | None = None, data=None, **trainer):
    torch.manual_seed(0)
    watch = watch or Watch()
    method = method or Baseline(ConvNet(width=4, dropout=0.2), optimizer=sgd, schedule=Cosine())
    trainer = bare_trainer(max_epochs=epochs, callbacks=[lottery, watch], num_sanity_val_steps=0, **trainer)
    trainer.fit(method, datamodule=data or Digits(batch_size=100, train_part=400, seed=5))
    return method, watch


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)


OPTIMIZERS = {
    "sgd": sgd,
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"linear": 1.0}, "Lottery.linear is 1.0: it must be from 0 to below 1"),
        ({"conv": -0.1}, "Lottery.conv is -0.1"),
        ({"density": 0}, "Lottery.density is 0: it must be above 0 and below 1"),
        ({"rounds": 0}, "1 or more"),
        ({"mask": "random"}, "give a ticket"),
        ({"leave_out": ["head"]}, r"Lottery.leave_out: \w+ has no module named head: it has \w+, "),
        ({"leave_out": ["1.weight"]}, r"Lottery.leave_out: \w+ has no module named 1.weight: it has 0, 1, "),
        ({"also": {"1.bais": 0.1}}, r"Lottery.also: \w+ has no parameter named 1.bais: it has \d+.weight, "),
        ({"rewind_to": "9 steps"}, "a round has 8 steps"),
        ({"rewind_to": "some"}, "give words"),
        ({"length": "1.5 steps"}, "give words"),
        ({"rounds": 40}, "leave nothing of"),
        ({"density": 0.0001, "rounds": 1}, "cannot be reached"),
        ({"rounds": 0, "ticket": "nowhere.pt"}, "there is no ticket"),
        ({"at_start": "snip", "density": 0.1}, "Lottery.at_start is snip: give a density, rounds 0 and no ticket"),
        ({"at_start": "snip", "rounds": 0}, "Lottery.at_start is snip: give a density, rounds 0 and no ticket"),
        ({"at_start": "snip", "rounds": 0, "density": 1e-4}, "leaves none of"),
    ],
)
def test_bad_options_are_refused_in_one_line(wrong, message):
    with pytest.raises(InputError, match=message) as error:
        train(Lottery(**{"rounds": 2, **wrong}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", [{"length": "0.75 epochs"}, {"rewind_to": "0.25 epochs"}, {"length": "1.5 epochs"}])
def test_a_round_does_not_end_while_gradients_accumulate(part):
    with pytest.raises(InputError, match="accumulate_grad_batches . ends no step"):
        train(Lottery(rounds=1, **part), accumulate_grad_batches=3 if part == {"length": "1.5 epochs"} else 2)


def test_a_second_fit_begins_anew():
    """Of the callback, of the data, and of the data without the callback."""
    lottery, data = Lottery(rounds=1), Digits(batch_size=100, train_part=400, seed=5)
    _, first = train(lottery, data=data)
    table = [row["test_nll"] for row in lottery.table]
    _, second = train(lottery, data=data)
    assert second.losses == first.losses and [row["test_nll"] for row in lottery.table] == table
    torch.manual_seed(0)
    method, watch = Baseline(ConvNet(width=4, dropout=0.2), optimizer=sgd, schedule=Cosine()), Watch()
    bare_trainer(max_epochs=4, callbacks=[watch]).fit(method, datamodule=data)
    assert len(watch.lrs) == 16 and watch.lrs == sorted(watch.lrs, reverse=True)


def test_a_random_ticket_is_drawn_from_the_seed_of_the_run_alone():
    found = Lottery(rounds=1)
    train(found)
    Ticket(found.rewind["weights"], found.of_rounds, 0).save(Path("ticket.pt"))
    drawn = []
    for draws in (0, 1):
        torch.manual_seed(draws)
        lottery = Lottery(rounds=0, ticket="ticket.pt", mask="random")
        data = Digits(batch_size=100, train_part=400)
        bare_trainer(max_epochs=1, callbacks=[lottery]).fit(Baseline(ConvNet(width=4), optimizer=sgd), datamodule=data)
        drawn.append(lottery.opened.masks)
    assert same(*drawn) and not same(drawn[0], masking.unpack_all(found.of_rounds[1], found.masks))


def test_what_would_break_rounds_is_refused():
    stop = pl.callbacks.EarlyStopping("val/nll")
    with pytest.raises(InputError, match="EarlyStopping"):
        bare_trainer(max_epochs=1, callbacks=[Lottery(), stop]).fit(Baseline(ConvNet()), datamodule=Digits())
    with pytest.raises(InputError, match="needs order same"):
        train(Lottery(rounds=1, rewind_to="2 steps", order="new"), DLB(ConvNet(width=4), optimizer=sgd))


# What is pruned


def test_only_weights_of_linear_and_conv_and_the_output_at_half_the_rate():
    lottery = Lottery(rounds=2, linear=0.4, conv=0.3)
    train(lottery, Baseline(ConvNet(width=4), optimizer=sgd))
    assert lottery.rates == {"0.weight": 0.3, "3.weight": 0.3, "6.weight": 0.3, "12.weight": 0.2}
    lottery = Lottery(rounds=1, leave_out=["3", "12"], also={"0.weight": 0.5, "1.bias": 0.25})
    train(lottery, Baseline(ConvNet(width=4), optimizer=sgd))
    assert lottery.rates == {"0.weight": 0.5, "6.weight": 0.2, "1.bias": 0.25}


@pytest.mark.parametrize("scope", ["layers", "global"])
def test_counts_are_exact(scope):
    lottery = Lottery(rounds=3, conv=0.2, output=0.2, scope=scope)
    train(lottery, epochs=1)
    counts = {name: mask.numel() for name, mask in lottery.masks.items()}
    of_rounds = [masking.unpack_all(packed, lottery.masks) for packed in lottery.of_rounds]
    for number, masks in enumerate(of_rounds):
        kept = {name: int(mask.sum()) for name, mask in masks.items()}
        wanted = {name: masking.kept_after(count, 0.2, number) for name, count in counts.items()}
        assert kept == wanted if scope == "layers" else sum(kept.values()) == sum(wanted.values())
    if scope == "global":
        assert len({round(masking.density({"": mask}), 3) for mask in lottery.masks.values()}) > 1
    for before, after in itertools.pairwise(of_rounds):
        assert not any((after[k] & ~before[k]).any() for k in before)  # masks nest


def test_one_shot_reaches_the_density():
    lottery = Lottery(rounds=1, density=0.1)
    train(lottery, epochs=1)
    assert lottery.table[-1]["density"] == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize("kind", ["snip", "synflow"])
def test_pruned_before_training_and_saved_as_a_ticket(kind):
    lottery = Lottery(rounds=0, at_start=kind, density=0.1)
    method, watch = train(lottery)
    count = sum(mask.numel() for mask in lottery.masks.values())
    assert sum(int(mask.sum()) for mask in lottery.masks.values()) == round(0.1 * count)
    assert len(lottery.table) == 1 and lottery.table[0]["density"] == pytest.approx(0.1, abs=1e-3)
    for name, mask in lottery.masks.items():
        assert not watch.starts[1][name][~mask].any() and not method.model.get_parameter(name)[~mask].any()
        assert method.model.get_parameter(name)[mask].all()
    Ticket(lottery.rewind["weights"], lottery.of_rounds, 0).save(Path("ticket.pt"))
    again = Lottery(rounds=0, ticket="ticket.pt")
    train(again)
    assert same(again.masks, lottery.masks) and again.table[0]["test_nll"] == lottery.table[0]["test_nll"]


def test_the_scores_at_the_start_are_of_preprocessed_pictures(monkeypatch):
    """As the network sees them."""
    seen = {}

    def record(kind, network, first, density, batch):
        seen["scored"] = batch.images
        return masks_at_start(kind, network, first, density, batch)

    class Sees(Baseline):
        def training_loss(self, batch, position):
            seen.setdefault("trained", batch.images)
            return super().training_loss(batch, position)

    monkeypatch.setattr(callback, "masks_at_start", record)
    data = Digits(batch_size=100, train_part=400, preprocess=GCN())
    train(Lottery(rounds=0, at_start="snip", density=0.1), Sees(ConvNet(width=4), optimizer=sgd), 1, data=data)
    assert seen["scored"].equal(seen["trained"])


def test_the_smallest_of_the_last_weights_go():
    lottery = Lottery(rounds=1)
    _, watch = train(lottery)
    trained = watch.starts[7]  # before the last step of round 0: near enough to check the order on what is far apart
    for name, mask in lottery.masks.items():
        assert trained[name][mask].abs().mean() > 2 * trained[name][~mask].abs().mean()


# What stays zero


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "options", [{}, {"gradient_clip_val": 0.1}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}]
)
def test_zeros_stay_zero(name, options):
    lottery = Lottery(rounds=2, rewind_to="2 steps", optimizer="kept")
    method, watch = train(
        lottery, Baseline(ConvNet(width=4), optimizer=OPTIMIZERS[name], channels_last=True), **options
    )
    for step, state in enumerate(watch.starts):
        number, _ = lottery.timeline.round_of(step)
        for key, mask in masking.unpack_all(lottery.of_rounds[number], lottery.masks).items():
            assert not state[key][~mask].any(), (step, key)
            assert (state[key][mask] != 0).float().mean() > 0.99
    for key, mask in lottery.masks.items():
        assert not method.model.state_dict()[key][~mask].any()


def test_gradients_of_what_is_pruned_do_not_count_when_clipped():
    class Norm(Watch):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            for key, mask in lottery.masks.items():
                assert not dict(pl_module.model.named_parameters())[key].grad[~mask].any()

    lottery = Lottery(rounds=1)
    train(lottery, watch=Norm(), gradient_clip_val=0.1)
    assert lottery.round == 1


# What is rewound


class Nothing(Lottery):
    """Rounds without pruning."""

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.rates = dict.fromkeys(self.rates, 0.0)


@pytest.mark.parametrize("schedule", [Cosine(warmup_epochs=0.5), MultiStep([1])])
@pytest.mark.parametrize("method", [Baseline, DLB])
@pytest.mark.parametrize("k", [0, 3])
def test_replay(schedule, method, k):
    """Without pruning, a later round is bitwise the first: weights, buffers, rates, batches, dropout, memory."""
    lottery = Nothing(rounds=2, rewind_to=f"{k} steps", optimizer="kept")
    _, watch = train(lottery, method(ConvNet(width=4, dropout=0.3), optimizer=OPTIMIZERS["adam"], schedule=schedule))
    length = 8 - k
    for number in (1, 2):
        for step in range(length):
            first, later = k + step, 8 + (number - 1) * length + step
            assert same(watch.starts[first], watch.starts[later]), (number, step)
            assert torch.equal(watch.indices[first], watch.indices[later])
            assert torch.equal(watch.images[first], watch.images[later])
            assert watch.lrs[first] == watch.lrs[later]
            assert watch.losses[first] == watch.losses[later]
    assert len(watch.starts) == 8 + 2 * length
    for row in lottery.table[1:]:
        assert row["test_nll"] == lottery.table[0]["test_nll"]
        if not k:  # else epochs end, and evaluate, at other steps of a round
            assert row["early_stop_step"] == lottery.table[0]["early_stop_step"]


@pytest.mark.parametrize("name", ["byot", "cs_kd", "ddgsd", "dml", "mr_kd", "ps_kd", "snapshot"])
def test_replay_of_what_a_method_trains_and_remembers_beside_its_network(name):
    """Heads, peers, tables and copies go back with the network."""
    lottery = Nothing(rounds=1, rewind_to="2 steps", optimizer="kept")
    torch.manual_seed(0)
    _, watch = train(lottery, make(name, ConvNet(width=4, dropout=0.3)))
    for step in range(2, 8):
        assert watch.losses[step] == watch.losses[step + 6], step
        assert same(watch.starts[step], watch.starts[step + 6])


def test_a_late_ticket_goes_on_from_its_step():
    """The last round of a search and its ticket, trained again, are the same steps of the same schedule."""
    lottery = Lottery(rounds=1, rewind_to="3 steps")
    _, watch = train(lottery)
    masks = [masking.unpack_all(packed, lottery.masks) for packed in lottery.of_rounds]
    Ticket(lottery.rewind["weights"], lottery.of_rounds, 3).save(Path("ticket.pt"))
    again = Lottery(rounds=0, ticket="ticket.pt")
    _, other = train(again)
    assert other.lrs == watch.lrs[8:] == watch.lrs[3:8] and other.losses == watch.losses[8:]
    assert again.table[0]["steps"] == 8 and len(other.starts) == 5
    # other weights are trained from the start, and for all of it
    fresh = Lottery(rounds=0, ticket="ticket.pt", weights="reinitialised")
    _, other = train(fresh)
    assert other.lrs == watch.lrs[:8]
    # pruned on, it goes back to where it started
    more = Lottery(rounds=1, ticket="ticket.pt", density=0.5)
    _, other = train(more)
    assert other.lrs == 2 * watch.lrs[3:8]
    assert more.table[0]["density"] == masking.density(masks[1])
    assert more.table[1]["density"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(InputError, match="the ticket is of step 3"):
        train(Lottery(rounds=0, ticket="ticket.pt", length="3 steps"))
    with pytest.raises(InputError, match="leave nothing of 0.weight"):
        train(Lottery(rounds=1, ticket="ticket.pt", conv=0.99))


def test_a_control_with_the_weights_of_the_ticket_is_refused():
    """A run with the seed of the search draws the same weights: it would be the ticket once more."""
    lottery = Lottery(rounds=1)
    train(lottery)
    Ticket(lottery.rewind["weights"], lottery.of_rounds, 0).save(Path("ticket.pt"))
    with pytest.raises(InputError, match="the seed of this run gives the ticket's own weights: give another --seed_"):
        train(Lottery(rounds=0, ticket="ticket.pt", weights="reinitialised"))
    train(Lottery(rounds=0, ticket="ticket.pt", weights="reinitialised", mask="random"))


@pytest.mark.parametrize("length", ["15 steps", "5 epochs"])
def test_steps_are_counted_where_accumulation_does_not_divide_the_epoch(length):
    """Five batches an epoch, two in a step: three steps, of which the last has one batch."""
    data = Digits(batch_size=100, train_part=500, seed=5)
    lottery = Lottery(rounds=1, length=length, rewind_to="6 steps")
    _, watch = train(lottery, epochs=6, data=data, accumulate_grad_batches=2)
    assert [row["steps"] for row in lottery.table] == [15, 15] and len(watch.starts) == 25 + 15
    Ticket(lottery.rewind["weights"], lottery.of_rounds, 6).save(Path("ticket.pt"))
    _, other = train(Lottery(rounds=0, ticket="ticket.pt", length=length), data=data, accumulate_grad_batches=2)
    assert other.lrs == watch.lrs[25:] and other.losses == watch.losses[25:]


def test_fine_tuning_of_a_later_round_goes_on_where_the_head_no_longer_is_first():
    tuning = FineTuning(head_first=1, rate_after_head=0.1)
    method = Baseline(ConvNet(width=4), optimizer=sgd, fine_tuning=tuning)
    _, watch = train(Lottery(rounds=1, retrain="fine_tune"), method)
    assert watch.lrs[:4] == [0.1] * 4 and watch.lrs[4:] == [pytest.approx(0.01)] * 12
    before, after = watch.starts[8], watch.starts[9]  # around the first step of round 1
    assert not before["0.weight"].equal(after["0.weight"])


def test_data_of_an_earlier_fit_with_other_needs():
    """A specialist takes other batches, and leaves its needs with the data."""
    data = Digits(batch_size=100, train_part=400, seed=5)
    lottery, expected = Lottery(rounds=1), train(Lottery(rounds=1), data=data)[1]
    data.needs = BatchNeeds(special_classes=(0,))
    _, watch = train(lottery, data=data)
    assert watch.losses == expected.losses and len(watch.starts) == 16


def test_the_file_of_a_round_is_of_one_step():
    """What a method trains beside the network is of the step with the lowest validation loss, too."""
    seen = {}

    class Keeps(Lottery):
        def on_validation_end(self, trainer, pl_module):
            best = self.best
            super().on_validation_end(trainer, pl_module)
            if self.best is not best:
                seen[self.round] = {name: value.clone() for name, value in pl_module.state_dict().items()}

        def _write_round(self, trainer):
            now = trainer.lightning_module.state_dict()
            assert same({name: value.clone() for name, value in now.items()}, seen[self.round])
            seen[f"written {self.round}"] = True

    method = make("branches", ConvNet(width=4))
    lottery = Keeps(rounds=1)
    train(lottery, method, val_check_interval=1)
    assert seen["written 0"] and seen["written 1"]


def test_a_ticket_found_without_a_layer_may_be_pruned_there():
    lottery = Lottery(rounds=1, leave_out=["0"])
    train(lottery)
    Ticket(lottery.rewind["weights"], lottery.of_rounds, 0).save(Path("ticket.pt"))
    more = Lottery(rounds=1, ticket="ticket.pt")
    train(more)
    assert more.table[0]["density_0.weight"] == 1 and more.table[1]["density_0.weight"] == pytest.approx(0.8, abs=0.02)


def test_steps_are_counted_as_the_trainer_takes_them():
    """Four batches an epoch, three to a step: an epoch is two steps."""
    lottery = Lottery(rounds=2)
    _, _watch = train(lottery, accumulate_grad_batches=3)
    assert [row["steps"] for row in lottery.table] == [4, 4, 4]
    assert all(row["early_stop_step"] in (2, 4) for row in lottery.table)


def test_half_precision_weights():
    lottery = Lottery(rounds=1)
    method, _ = train(lottery, Baseline(ConvNet(width=4), optimizer=sgd), precision="bf16-true")
    assert len(lottery.table) == 2
    for key, mask in lottery.masks.items():
        assert not method.model.state_dict()[key][~mask].any()


def test_a_layer_that_dies_is_told_before_the_round_and_counted(capsys):
    network = ConvNet(width=4)
    with torch.no_grad():
        network[3].weight.mul_(1e-6)  # the least of all
    lottery = Lottery(rounds=1, conv=0.6, output=0.6, scope="global")
    train(lottery, Baseline(network, optimizer=lambda p: torch.optim.SGD(p, lr=0.0)))
    assert lottery.table[1]["dead_layers"] == 1 and lottery.table[1]["density_3.weight"] == 0
    assert "3.weight has no weights left" in capsys.readouterr().err


def test_validation_at_other_steps_in_each_round_is_told(capsys):
    train(Lottery(rounds=1, length="6 steps"))
    assert "early stops cannot be compared" in capsys.readouterr().err
    train(Lottery(rounds=1))
    assert "early stops" not in capsys.readouterr().err


def test_weights_go_back_to_where_they_were_and_share_nothing_with_it():
    lottery = Lottery(rounds=3, rewind_to="2 steps")
    _, watch = train(lottery)
    theta = watch.starts[2]
    for number in range(3):
        state = watch.starts[8 + 6 * number]
        for key, value in state.items():
            mask = masking.unpack_all(lottery.of_rounds[number + 1], lottery.masks).get(key)
            assert torch.equal(value, theta[key] if mask is None else theta[key] * mask), key
    assert all(torch.equal(lottery.rewind["weights"][key], value) for key, value in theta.items())


def test_learning_rate_rewinding_keeps_weights_and_fine_tuning_the_last_rate():
    for retrain in ("learning_rate", "fine_tune"):
        lottery = Lottery(rounds=1, retrain=retrain, optimizer="kept")
        method = Baseline(ConvNet(width=4), optimizer=sgd, schedule=Cosine())
        _, watch = train(lottery, method)
        mask = lottery.masks["6.weight"]
        moved = (watch.starts[8]["6.weight"] - watch.starts[7]["6.weight"])[mask].abs().max()
        back = (watch.starts[8]["6.weight"] - watch.starts[0]["6.weight"])[mask].abs().max()
        assert moved < back / 3
        if retrain == "fine_tune":
            assert set(watch.lrs[8:]) == {watch.lrs[7]}
        else:
            assert watch.lrs[8:] == watch.lrs[:8]


def test_the_order_may_be_new_in_each_round():
    _, watch = train(Lottery(rounds=1, order="new"))
    assert not torch.equal(watch.indices[0], watch.indices[8])
    assert set(torch.cat(watch.indices[:4]).tolist()) == set(torch.cat(watch.indices[8:12]).tolist())


@pytest.mark.parametrize("length", ["6 steps", "1.5 epochs", "3 steps"])
def test_a_round_may_end_inside_an_epoch(length):
    lottery = Lottery(rounds=3, length=length)
    _, watch = train(lottery, val_check_interval=1)
    steps = 3 if length == "3 steps" else 6
    assert len(watch.starts) == 4 * steps
    for number in range(1, 4):
        assert torch.equal(watch.indices[0], watch.indices[number * steps])
        assert watch.lrs[0] == watch.lrs[number * steps]
    assert [row["steps"] for row in lottery.table] == [steps] * 4
    assert all(1 <= row["early_stop_step"] <= steps for row in lottery.table)


def test_early_stop_is_the_lowest_validation_loss_of_the_round():
    class Validated(Watch):
        seen = []

        def on_validation_end(self, trainer, pl_module):
            self.seen.append((trainer.global_step, float(trainer.callback_metrics["val/nll"])))

    watch, lottery = Validated(), Lottery(rounds=2)
    Validated.seen = []
    train(lottery, watch=watch, epochs=4, val_check_interval=2)
    for number, row in enumerate(lottery.table):
        mine = [(step - 16 * number, nll) for step, nll in Validated.seen if 16 * number < step <= 16 * (number + 1)]
        assert (row["early_stop_step"], row["early_stop_val_nll"]) == min(mine, key=lambda pair: pair[1])


# Through the command


SMALL = ["--trainer.max_epochs", 2, "--data.train_part", 300, "--data.batch_size", 50, "--trainer.callbacks.rounds", 3]
SMALL += ["--trainer.log_every_n_steps", 2]


def found(method: str = "baseline", *given) -> Path:
    return fit(f"digits/{method}.yaml", "--config", LOTTERY, *SMALL, *given)


def test_what_a_run_leaves(capsys):
    run = found("baseline", "--trainer.val_check_interval", 2)
    rounds = list(csv.DictReader((run / "rounds.csv").open()))
    summary = json.loads((run / "summary.json").read_text())
    assert [int(row["round"]) for row in rounds] == [0, 1, 2, 3]
    assert [row["density"] for row in summary["rounds"]] == [float(row["density"]) for row in rounds]
    assert summary["epochs"] == 8 and summary["steps"] == 48
    assert summary["metrics"]["test/nll"] == pytest.approx(float(rounds[-1]["test_nll"]), rel=1e-6)
    assert "<svg" in (run / "rounds.svg").read_text()
    assert summary["density"] == pytest.approx(float(rounds[-1]["density"]), abs=0.01)
    assert "density" in capsys.readouterr().err
    seen = events(run)
    assert len(seen["round/density"]) == 4
    assert next(step for step, _ in events(run / "by_density")["by_density/test_accuracy"]) == 10_000
    # the best of each round opens anywhere; the last is pruned, and opens without the callback
    best = open_network(run / "rounds" / "round_02.ckpt")
    ticket = Ticket.open(run / "ticket.pt")
    for name, packed in report_masks(Record(run), 2).items():
        assert torch.equal(masking.unpack(torch.from_numpy(packed), ticket.masks(2)[name].shape), ticket.masks(2)[name])
    assert all(not best.state_dict()[k][~mask].any() for k, mask in ticket.masks(2).items())
    assert {k.partition(".")[0] for k in load(run)["state_dict"]} == {"model"}
    assert distill("test", "--ckpt_path", run / "checkpoints" / "last.ckpt") == 0
    assert "test" in capsys.readouterr().out
    assert distill("test", "--ckpt_path", run / "rounds" / "round_03.ckpt") == 0
    # the packed one is the last weights
    packed = load_packed(run / "packed.pt", ConvNet())
    assert same(packed.state_dict(), open_network(run / "checkpoints" / "last.ckpt").state_dict())
    # the best weights of a round are no place to go on from, and nothing is lost by asking
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    again = ["fit", "--config", CONFIGS / "digits" / "baseline.yaml", "--config", LOTTERY, *SMALL]
    assert distill(*again, "--ckpt_path", run / "rounds" / "round_01.ckpt") == 2
    assert "give a file in a run's folder checkpoints" in capsys.readouterr().err
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before and (run / "summary.json").is_file()


def test_resuming_without_the_callback_is_refused(capsys):
    run = found("baseline", "--name", "cut")
    (run / "summary.json").unlink()
    given = [
        "fit",
        "--config",
        CONFIGS / "digits" / "baseline.yaml",
        *SMALL[:6],
        "--name",
        "cut",
        "--ckpt_path",
        "last",
    ]
    assert distill(*given) == 2
    assert "was started with the callback Lottery, which is missing now: add it" in capsys.readouterr().err
    data = Digits(batch_size=50, train_part=300)
    trainer = bare_trainer(max_epochs=20)
    with pytest.raises(InputError, match="zeros would grow again"):
        trainer.fit(Baseline(ConvNet()), datamodule=data, ckpt_path=run / "checkpoints" / "last.ckpt")


def assert_same_lottery(a: Path, b: Path) -> None:
    assert_same_run(a, b)
    first, second = (load(run)["callbacks"]["Lottery"] for run in (a, b))
    for state in (first, second):
        state["table"] = [{k: v for k, v in row.items() if not k.endswith("_s")} for row in state["table"]]
    assert same(first, second)
    assert Ticket.open(a / "ticket.pt").masks(-1).keys() == Ticket.open(b / "ticket.pt").masks(-1).keys()


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("baseline", ["--trainer.callbacks.rewind_to", "2 steps", "--checkpoint.every_n_steps", 1]),
        ("dlb", ["--trainer.callbacks.rewind_to", "3 steps", "--checkpoint.every_n_steps", 2]),
        ("dlb", ["--trainer.callbacks.length", "9 steps", "--checkpoint.every_n_steps", 1, "--trainer.val_check_interval", 2]),  # noqa: E501
        ("baseline", ["--trainer.callbacks.retrain", "learning_rate", "--trainer.callbacks.optimizer", "kept"]),
        ("baseline", [*AT_START, "--checkpoint.every_n_steps", 1]),
    ],
)  # fmt: skip
def test_killed_at_any_moment_of_any_round(method, given, monkeypatch):
    rng = random.Random(f"{method} {given}")  # without paths: the same cuts wherever the tests lie
    given = ["--config", CONFIGS / "digits" / f"{method}.yaml", "--config", LOTTERY, *SMALL, *given]
    assert distill("fit", *given, "--name", "whole") == 0
    kill_and_resume(given, rng, monkeypatch, times=8, reach=12)
    assert_same_lottery(Path(f"logs/digits/{method}/whole"), Path(f"logs/digits/{method}/killed"))


def kill_once(given: list, monkeypatch, hook: str, count: int) -> None:
    """A run with a checkpoint at each step, whole, and killed at that call of the hook and resumed."""
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", "--config", LOTTERY, *SMALL, *given]
    given += ["--checkpoint.every_n_steps", 1]
    assert distill("fit", *given, "--name", "whole") == 0
    with monkeypatch.context() as patch:
        Kill(patch, hook, count)
        assert distill("fit", *given, "--name", "killed") == 1
    assert distill("fit", *given, "--name", "killed", "--ckpt_path", "last") == 0
    assert_same_lottery(Path("logs/digits/baseline/whole"), Path("logs/digits/baseline/killed"))


@pytest.mark.parametrize("step", [11, 12, 13, 24, 25, 47])
def test_killed_around_the_end_of_a_round(step, monkeypatch):
    kill_once([], monkeypatch, "on_before_backward", step)


def test_killed_after_the_last_step_of_a_round_that_ends_inside_an_epoch(monkeypatch):
    """No validation is due, and the end of the epoch is: the checkpoint waits for it."""
    given = ["--trainer.callbacks.length", "5 steps", "--trainer.check_val_every_n_epoch", 99]
    kill_once(given, monkeypatch, "on_train_epoch_end", 4)  # the last: 20 steps of 4 rounds, 6 an epoch


def test_a_ticket_and_its_controls():
    run = found()
    ticket = Ticket.open(run / "ticket.pt")
    given = [
        "--config",
        CONFIGS / "callbacks" / "ticket.yaml",
        *SMALL[:6],
        "--trainer.callbacks.ticket",
        run / "ticket.pt",
    ]
    same_run = fit("digits/baseline.yaml", *given, "--name", "again")
    # the last round of the search, once more
    assert same(load(same_run)["state_dict"], load(run)["state_dict"])
    for name, options in {
        "reinit": ["weights", "reinitialised"],
        "shuffled": ["mask", "shuffled"],
        "random": ["mask", "random"],
        "early": ["ticket_round", 1],
    }.items():
        other = fit(
            "digits/baseline.yaml",
            *given,
            "--name",
            name,
            f"--trainer.callbacks.{options[0]}",
            options[1],
            "--seed_everything",
            3,
        )
        masks = Ticket.open(other / "ticket.pt").masks(0)
        wanted = ticket.masks(1 if name == "early" else 3)
        assert masking.density(masks) == masking.density(wanted)
        equal = all(torch.equal(masks[k], wanted[k]) for k in masks)
        assert equal == (name in ("reinit", "early"))
        per_layer = all(masks[k].sum() == wanted[k].sum() for k in masks)
        assert per_layer == (name != "random")
        weights = Ticket.open(other / "ticket.pt").weights["0.weight"]
        kept = masks["0.weight"] & wanted["0.weight"]
        assert torch.equal(weights[kept], ticket.weights["0.weight"][kept]) == (name != "reinit")
        assert not load(other)["state_dict"]["model.0.weight"][~masks["0.weight"]].any()


def test_a_ticket_that_is_fine_tuned_is_still_of_its_step():
    first = fit("digits/baseline.yaml", "--config", LOTTERY, *SMALL, "--trainer.callbacks.rewind_to", "2 steps")
    more = ["--trainer.callbacks.ticket", first / "ticket.pt", "--trainer.callbacks.retrain", "fine_tune"]
    tuned = fit("digits/baseline.yaml", "--config", LOTTERY, *SMALL, *more, "--trainer.callbacks.rounds", 1)
    before, after = (Ticket.open(run / "ticket.pt") for run in (first, tuned))
    assert before.step == after.step == 2
    for key, mask in after.masks(0).items():
        assert after.weights[key].equal(before.weights[key] * mask)


def test_a_ticket_of_another_network_is_refused(capsys):
    run = found()
    given = [
        "--config",
        CONFIGS / "callbacks" / "ticket.yaml",
        *SMALL[:6],
        "--trainer.callbacks.ticket",
        run / "ticket.pt",
    ]
    capsys.readouterr()
    assert distill("fit", "--config", CONFIGS / "digits" / "baseline.yaml", *given, "--model.network.width", 8) == 2
    assert "is of another network" in capsys.readouterr().err
    given[-1], number = run / "ticket.pt", ["--trainer.callbacks.ticket_round", 9]
    assert distill("fit", "--config", CONFIGS / "digits" / "baseline.yaml", *given, *number) == 2
    assert "rounds 0 to 3" in capsys.readouterr().err


def test_a_run_goes_on_with_the_ticket_that_it_began_with_alone(monkeypatch, capsys):
    run, ticket = found(), Path("exchanged.pt")
    shutil.copy(run / "ticket.pt", ticket)
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", "--config", CONFIGS / "callbacks" / "ticket.yaml"]
    given += [*SMALL[:6], "--trainer.callbacks.ticket", ticket, "--name", "exchanged"]
    with monkeypatch.context() as patch:
        Kill(patch, "on_before_backward", 8)  # in the second epoch
        assert distill("fit", *given) == 1
    other = Ticket.open(ticket)
    other.rounds.reverse()
    other.save(ticket)
    capsys.readouterr()
    assert distill("fit", *given, "--ckpt_path", "last") == 2
    assert "exchanged.pt has changed since the run began: resume it with the same" in capsys.readouterr().err
    shutil.copy(run / "ticket.pt", ticket)
    assert distill("fit", *given, "--ckpt_path", "last") == 0


def test_with_a_teacher():
    fit("digits/baseline.yaml", "--trainer.max_epochs", 1)
    run = fit("digits/born_again.yaml", "--config", LOTTERY, *SMALL)
    assert json.loads((run / "summary.json").read_text())["rounds"][-1]["density"] < 0.53
    assert {"train/loss_ce", "train/loss_soft"} & set(events(run)) or "train/loss_teacher" in events(run)


def test_two_processes_find_the_same_ticket():
    given = ["fit", "--config", CONFIGS / "digits" / "baseline.yaml", "--config", LOTTERY, *SMALL]
    given += ["--model.network", "LeNet300100", "--model.optimizer.lr", 0.03]
    for devices in (1, 2):
        run_on(devices, *given, "--name", f"on-{devices}")
    one, two = (Path(f"logs/digits/baseline/on-{devices}") for devices in (1, 2))
    a, b = Ticket.open(one / "ticket.pt"), Ticket.open(two / "ticket.pt")
    assert masking.overlap(a.masks(-1), b.masks(-1)) > 0.999  # sums in another order may swap a pair of equals
    for key, mask in b.masks(-1).items():
        assert not load(two)["state_dict"][f"model.{key}"][~mask].any()


def test_two_processes_test_a_round_with_the_running_statistics_of_the_first():
    """Each has its own otherwise, where no validation comes before the round's end."""
    given = ["fit", "--config", CONFIGS / "digits" / "baseline.yaml", "--config", LOTTERY, *SMALL, "--data.val_size", 0]
    run_on(2, *given, "--name", "norms")
    summary = json.loads(Path("logs/digits/baseline/norms/summary.json").read_text())
    assert summary["rounds"][-1]["test_nll"] == pytest.approx(summary["metrics"]["test/nll"], rel=1e-6)
