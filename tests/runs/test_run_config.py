"""The configuration of a run: its id, the options that decide its result, and the files in its folder."""

import copy
import json
import sys
import types
from pathlib import Path

import pytest
import yaml
from helpers import CONFIGS

from distill_lightning.cli.app import resolve
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.runs import Declared, Run, RunConfig, start
from distill_lightning.runs.declared import declared
from distill_lightning.runs.folder import refuse_changes


@pytest.fixture
def config(pictures) -> RunConfig:
    """Of a run on a folder of pictures."""
    return resolve(["fit", "--config", str(CONFIGS / "folder/baseline.yaml"), "--data.root", str(pictures)]).config


class Birds(ImageData):
    """Of a user's own, who says nothing of the option."""

    num_classes, channels, image_size = 2, 3, 8

    def __init__(self, cache: str = "x", **kwargs):
        super().__init__(**kwargs)


def test_options_are_free_where_their_class_says_so():
    config = resolve(["fit", "--config", str(CONFIGS / "digits/kd.yaml")]).config
    names = {name.rpartition(".")[2] for name in config.declared.free}
    # with their defaults, which mean the same as no such options
    later = {"balanced", "unlabelled", "unlabelled_share", "preprocess", "activation", "initializer"}
    later |= {"standardise", "norm", "cuda_graphs"}
    assert names == {"root", "num_workers", "pictures", "eval_batch_size", "folder"} | later
    assert config.declared.pictures is None and not config.declared.validation_decides
    assert "trainer.callbacks.0.init_args.folder" not in config.result_options
    assert "trainer.callbacks.0.init_args.views" in config.result_options


def test_an_option_that_shares_its_name_with_a_free_one_counts(monkeypatch):
    monkeypatch.setitem(sys.modules, "birds", types.SimpleNamespace(Birds=Birds))
    spec = {"class_path": "birds.Birds", "init_args": {"cache": "a", "root": "r"}}
    first = {"data": spec, "trainer": {}, "model": {}}
    config = RunConfig(first, declared(first))
    second = config.replaced({**first, "data": {**spec, "init_args": {"cache": "b", "root": "r"}}})
    assert config.result_options["data.init_args.cache"] == "a"
    assert config.id() != second.id()
    assert config.declared.pictures == str(Path("r").resolve())


def test_a_folder_says_which_pictures_and_a_known_set_does_not(config, pictures):
    assert config.declared.pictures == str(pictures)
    assert resolve(["fit", "--config", str(CONFIGS / "mnist/baseline.yaml")]).config.declared.pictures is None


def test_rounds_keep_their_best_validation():
    lottery = ["--config", str(CONFIGS / "callbacks/lottery.yaml")]
    config = resolve(["fit", "--config", str(CONFIGS / "digits/baseline.yaml"), *lottery]).config
    assert config.declared.validation_decides
    assert "trainer.check_val_every_n_epoch" in config.result_options


def test_is_read_as_it_was_written(config, tmp_path):
    folder = start(tmp_path, "a", config).folder
    read = RunConfig.read(folder)
    assert read == config.with_options(name="a")
    assert json.loads((folder / "identity.json").read_text())["id"] == config.id() == read.id()


def test_a_folder_of_version_0_1_says_nothing_and_has_the_same_id(config, tmp_path):
    options = copy.deepcopy(config.options)
    # options that version 0.1 did not have
    added = ("balanced", "bad_pictures", "other_classes", "unlabelled", "unlabelled_share", "preprocess", "cache_bytes")
    for later in added:
        del options["data"]["init_args"][later]
    del options["model"]["init_args"]["cuda_graphs"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options))
    assert RunConfig.read(tmp_path).id() == config.id()
    assert RunConfig.read(tmp_path).declared == Declared.in_version_0_1(options)


def test_a_later_format_is_refused_by_name(config, tmp_path):
    folder = start(tmp_path, "a", config).folder
    (folder / "identity.json").write_text('{"format": 9}')
    with pytest.raises(InputError, match=r"identity.json has the format 9, this version reads up to 2"):
        RunConfig.read(folder)


BAR = {"class_path": "lightning.pytorch.callbacks.TQDMProgressBar", "init_args": {"refresh_rate": 1}}
OWN = {"class_path": "distill_lightning.callbacks.ema.EMA", "init_args": {"decay": 0.9}}
TABLE = {"class_path": "distill_lightning.callbacks.soft_targets.SoftTargets", "init_args": {"folder": "a", "views": 2}}


def with_callbacks(callbacks, made_in_python=None) -> RunConfig:
    free = frozenset(f"trainer.callbacks.{i}.init_args.folder" for i in range(5))
    options = {"model": {}, "data": {}, "trainer": {"callbacks": callbacks}}
    return RunConfig(options | ({"made_in_python": made_in_python} if made_in_python else {}), Declared(free))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([OWN, TABLE], [BAR, OWN, BAR, TABLE, BAR]),
        ([OWN], [BAR, OWN]),
        ([], [BAR]),
        (None, [BAR]),
        (None, BAR),
        ([], None),
        (OWN, [BAR, OWN]),
        ([], BAR),
        ([{"class_path": "a.B"}], [{"class_path": "a.B", "init_args": {}}]),
    ],
)
def test_callbacks_that_watch_do_not_count(one, other, tmp_path):
    one, other = with_callbacks(one), with_callbacks(other)
    for old, new in ((one, other), (other, one)):
        refuse_changes(old, new, Run(tmp_path))
    if not isinstance(one.options["trainer"]["callbacks"], dict):
        assert one.id() == other.id()
    changed = with_callbacks([BAR, OWN | {"init_args": {"decay": 0.8}}])
    with pytest.raises(InputError, match="trainer.callbacks"):
        refuse_changes(one, changed, Run(tmp_path))


def test_a_callback_made_in_python_keeps_its_place_among_those_that_count(tmp_path):
    one = with_callbacks([None, OWN], {"trainer.callbacks.0": "mine.Callback"})
    other = with_callbacks([BAR, None, OWN], {"trainer.callbacks.1": "mine.Callback"})
    refuse_changes(one, other, Run(tmp_path))
    assert one.id() == other.id()
    with pytest.raises(InputError, match="made_in_python"):
        refuse_changes(one, with_callbacks([BAR, None, OWN], {"trainer.callbacks.1": "mine.Other"}), Run(tmp_path))


def test_an_option_that_is_free_stays_free_behind_a_callback_that_watches(tmp_path):
    moved = TABLE | {"init_args": {"folder": "b", "views": 2}}
    refuse_changes(with_callbacks([BAR, OWN, TABLE]), with_callbacks([OWN, moved]), Run(tmp_path))


def test_a_precision_that_is_given_as_a_plugin_counts():
    double = {"class_path": "lightning.pytorch.plugins.DoublePrecision"}
    one, other = (RunConfig({"model": {}, "data": {}, "trainer": {"plugins": given}}) for given in (None, [double]))
    assert one.id() != other.id()
