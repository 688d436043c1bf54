"""Groups of runs in a report."""

from helpers import write_run

from distill_lightning.report.groups import grouped
from distill_lightning.report.records import find


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
