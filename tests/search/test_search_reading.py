"""What a search's file may say."""

from pathlib import Path

import pytest
import yaml

from distill_lightning.errors import InputError
from distill_lightning.search import read_search
from distill_lightning.search.reading import Between

GOOD = {"config": "digits/baseline", "space": {"model.optimizer.lr": {"from": 0.001, "to": 1.0, "log": True}}}


def written(**changed) -> Path:
    path = Path("search.yaml")
    path.write_text(yaml.safe_dump({key: value for key, value in (GOOD | changed).items() if value is not ...}))
    return path


def test_what_is_not_said_has_a_default():
    search = read_search(written())
    assert (search.trials, search.seeds, search.metric, search.lowest_is_best) == (20, 1, "val/accuracy", False)
    assert search.space == {"model.optimizer.lr": Between(0.001, 1.0, True)} and not search.prune
    assert search.corner() == {"model.optimizer.lr": 0.001}


def test_whole_numbers_stay_whole_and_a_list_may_hold_anything():
    mixes = ["Mixup", {"class_path": "CutMix", "init_args": {"alpha": 0.5}}]
    search = read_search(written(space={"data.batch_size": {"from": 16, "to": 64}, "data.mix": mixes}))
    assert search.space["data.batch_size"].whole and search.space["data.mix"] == mixes


def test_a_digest_is_of_what_can_change_the_results():
    digest = read_search(written()).digest("runs")
    assert read_search(written(trials=99, prune=True)).digest("runs") == digest
    assert len({digest, read_search(written()).digest("other runs")}) == 2
    assert (
        read_search(written(seeds=2)).digest("runs") != digest != read_search(written(metric="val/nll")).digest("runs")
    )


def test_corners_reach_all_of_a_list_and_both_ends_of_a_range():
    search = read_search(written(space={"a": {"from": 1, "to": 9}, "b": ["x", "y", "z"]}))
    assert list(search.corners()) == [
        {"a": 1, "b": "x"}, {"a": 9, "b": "x"}, {"a": 1, "b": "y"}, {"a": 1, "b": "z"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    "word", ["--model.optimizer.lr", "--model.optimizer=Adam", "--seed_everything", "--config", "-c", "--model"]
)
def test_an_argument_must_not_replace_what_is_searched(word):
    with pytest.raises(InputError, match="would replace what search.yaml searches or sets: write it there"):
        read_search(written(), [word, "3"])
    assert read_search(written(), ["--data.root", "3"]).given == ("--data.root", "3")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"space": ...}, "is no search: it needs the keys config and space"),
        ({"space": {}}, "space is empty"),
        ({"spaces": {}}, "has an unknown key spaces; did you mean space?"),
        ({"space": {"data.batch_size": 3}}, "the space of data.batch_size is 3: give a list of values, or a range"),
        ({"space": {"data.batch_size": [3, 3]}}, "give at least two values"),
        ({"space": {"data.batch_size": {"from": 3, "to": 3}}}, "goes from 3 to 3: the first must be below the second"),
        ({"space": {"model.optimizer.lr": {"from": 0, "to": 1, "log": True}}}, "the first must be above 0 and below"),
        ({"space": {"model.optimizer.lr": {"from": "1e-3", "to": 1}}}, "goes from 1e-3 to 1: expected two numbers"),
        ({"space": {"model.optimizer.lr": {"from": 0.1, "to": 1, "steps": 3}}}, "has an unknown key steps"),
        ({"space": {"name": ["a", "b"]}}, "sets name, which the search itself sets"),
        ({"space": {"seed_everything": [0, 1]}}, "sets seed_everything, which the search itself sets"),
        ({"options": {"model.optimizer.lr": 1}}, "model.optimizer.lr is in options and in space"),
        ({"metric": "test/accuracy"}, "metric is test/accuracy: a search looks at the validation split alone"),
        ({"trials": 0}, "trials is 0: expected a number of 1 or more"),
        ({"lowest_is_best": "yes"}, "lowest_is_best is yes: expected true or false"),
        ({"seeds": 2, "prune": True}, "prune compares single runs: leave it out, or seeds at 1"),
    ],
    ids=str,
)
def test_a_wrong_search_is_one_line(changed, message):
    with pytest.raises(InputError, match="search.yaml") as raised:
        read_search(written(**changed))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_search_that_is_not_there():
    with pytest.raises(InputError, match="there is no search digts.yaml"):
        read_search(Path("digts.yaml"))
