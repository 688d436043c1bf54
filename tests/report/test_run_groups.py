"""Groups of runs in a report."""

import yaml
from helpers import write_run

from distill_lightning.report.groups import grouped
from distill_lightning.report.labels import labels
from distill_lightning.report.records import find
from distill_lightning.report.run_tables import overview


def test_runs_that_differ_by_seed_alone_are_one_group(tmp_path):
    teachers = [write_run(tmp_path / f"t{seed}", seed, lr=0.5) for seed in range(2)]
    other = write_run(tmp_path / "other", 0, lr=0.7)
    for seed, teacher in enumerate(teachers):
        write_run(tmp_path / f"s{seed}", seed, teacher=str(teacher / "checkpoints" / "last.ckpt"))
    write_run(tmp_path / "s-other", 0, teacher=str(other / "checkpoints" / "last.ckpt"))
    groups = grouped(find([tmp_path]))
    assert sorted(sorted(r.folder.name for r in g.records) for g in groups) == [
        ["other"], ["s-other"], ["s0", "s1"], ["t0", "t1"],
    ]  # fmt: skip
    labels = {group.records[0].folder.name: group.label for group in groups}
    assert "lr 0.5" in labels["t0"] and "lr 0.7" in labels["other"]
    assert len(set(labels.values())) == 4


def test_the_first_finished_run_of_a_seed_is_kept(tmp_path):
    for name, seed in (("a", 0), ("a-2", 0), ("b", 1)):
        write_run(tmp_path / name, seed)
    (tmp_path / "a" / "summary.json").unlink()
    (group,) = grouped(find([tmp_path]))
    assert [record.folder.name for record in group.records] == ["a-2", "b"]


def test_of_many_settings_the_uncommon_ones_are_named_first(tmp_path):
    """Of ten options each of ten runs has its own one changed: it comes first, and the others are cut."""
    for changed in range(10):
        folder = write_run(tmp_path / f"run{changed}")
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["trainer"]["callbacks"] = [
            {"class_path": f"mine.C{k}", "init_args": {f"option_{k}": 1 if k == changed else 0}} for k in range(10)
        ]
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    groups = grouped(find([tmp_path]))
    for group, row in zip(groups, overview(groups).rows, strict=True):
        number = group.records[0].folder.name.removeprefix("run")
        assert row[-1].startswith(f"option_{number} 1; ") and row[-1].endswith("; and 2 more")


def test_a_long_label_leaves_out_what_is_usual():
    """One way changes one option of six, another leaves one out: the labels say what, and what is usual has none."""
    usual = {f"model.a_rather_long_option_{k}": 0.1 for k in range(6)} | {"data.augment.0": "RandomCrop"}
    without = {key: value for key, value in usual.items() if key != "data.augment.0"}
    changed = [usual | {f"model.a_rather_long_option_{k}": 0.2} for k in range(6)]
    found = labels("KD", [None] * 9, [usual, *changed, without, usual | {"data.augment.0": "Cutout"}])
    assert found == ["KD", *(f"KD, a_rather_long_option_{k} 0.2" for k in range(6)), "KD, no RandomCrop", "KD, Cutout"]


def test_a_long_label_of_two_ways_has_both_values():
    first, second = ({f"model.a_rather_long_option_{k}": value for k in range(4)} for value in (0.1, 0.2))
    assert labels("KD", [None, None], [first, second]) == [f"KD, a_rather_long_option_0 {x}" for x in (0.1, 0.2)]
