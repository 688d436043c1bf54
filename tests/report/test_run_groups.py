"""Groups of runs in a report."""

import pytest
import yaml
from helpers import write_run

from distill_lightning.report.comparisons import difference
from distill_lightning.report.groups import Group, grouped
from distill_lightning.report.labels import labels
from distill_lightning.report.records import Record, find
from distill_lightning.report.run_tables import overview, results


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


def test_a_seed_with_several_teachers_has_several_runs(tmp_path):
    """Ensembles usually have seed 0 all, and other members; a seed counts with the mean of its runs."""
    teachers = [write_run(tmp_path / f"t{seed}", seed, lr=0.5) for seed in range(2)]
    for seed, teacher in enumerate(teachers):
        path = str(teacher / "checkpoints" / "last.ckpt")
        write_run(tmp_path / f"s{seed}", 0, teacher=path, accuracy=0.7 + 0.1 * seed)
    _, students = grouped(find([tmp_path / "t0", tmp_path / "t1", tmp_path / "s0", tmp_path / "s1"]))
    assert [record.folder.name for record in students.records] == ["s0", "s1"]
    assert students.values("test/accuracy") == [0.7, pytest.approx(0.8)]
    assert students.by_seed("test/accuracy") == {0: pytest.approx(0.75)}


def test_records_find_their_teachers_beside_them(tmp_path):
    """A record names its teacher by the path of the run, which lay below logs, not below results."""
    for seed in range(2):
        write_run(tmp_path / "results" / "mnist" / "baseline" / f"t{seed}", seed, lr=0.5)
        path = f"logs/mnist/baseline/t{seed}/checkpoints/last.ckpt"
        write_run(tmp_path / "results" / "mnist" / "kd" / f"s{seed}", seed, teacher=path)
    assert [len(group.records) for group in grouped(find([tmp_path]))] == [2, 2]


def test_groups_with_one_label_have_their_own_differences(tmp_path):
    base, *others = (
        Group(label, [Record(write_run(tmp_path / name, accuracy=accuracy))])
        for label, name, accuracy in (("baseline", "b", 0.5), ("taught", "few", 0.6), ("taught", "many", 0.9))
    )
    table = results([base, *others], base)
    assert [row[3] for row in table.rows] == ["baseline", "+10.00", "+40.00"]


def test_runs_of_other_classes_are_not_compared(tmp_path):
    """Twenty classes and all hundred of one data set have one name."""
    groups = []
    for name, classes in (("some", "a,b"), ("all", "a,b,c")):
        run = write_run(tmp_path / name)
        rows = "".join(f"{one},{','.join('1' * len(classes.split(',')))}\n" for one in classes.split(","))
        (run / "confusion.csv").write_text(f"true,{classes}\n{rows}")
        groups.append(Group(name, [Record(run)]))
    assert difference(groups[1], groups[0], "test/accuracy") is None
    assert difference(groups[0], groups[0], "test/accuracy") is not None


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
