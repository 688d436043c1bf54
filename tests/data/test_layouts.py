"""Layouts of folders and archives: each gives the numbers of the plain one, and none loses a part in silence."""

import csv
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import write_pictures, write_shard

from distill_lightning.data import tables
from distill_lightning.data.archives import ZipStore
from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.part_names import part_of
from distill_lightning.errors import InputError

PARTS = {"train": 8, "val": 3, "test": 2}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("layouts") / "plain"
    for number, (part, count) in enumerate(PARTS.items()):
        write_pictures(root / part, 3, count, size=16, seed=number)
    return root


def opened(root: Path, **options) -> ImageFolder:
    data = ImageFolder(str(root), **{"image_size": 16, "batch_size": 4, **options})
    data.setup("fit")
    data.setup("test")
    return data


def numbers(data: ImageFolder) -> tuple:
    splits = [data.train, data.val, data.test]
    of_splits = [
        (split.source.images[split.taken].tolist(), split.labels[split.taken].tolist()) if split else None
        for split in splits
    ]
    return data.class_names, data.fingerprint, of_splits


def pictures_of(root: Path) -> list[tuple[str, str, Path]]:
    """Part, class and file of each picture."""
    return [(f.parent.parent.name, f.parent.name, f) for f in sorted(root.glob("*/*/*.png"))]


def renamed(names: dict[str, str]):
    def make(plain: Path, root: Path) -> Path:
        for part, name in names.items():
            shutil.copytree(plain / part, root / name)
        return root

    return make


def class_first(plain: Path, root: Path) -> Path:
    for part, label, file in pictures_of(plain):
        (root / label / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / label / part / file.name)
    return root


def table(plain: Path, root: Path, name_of, header: list[str], rows_of, files=("labels.csv",)) -> Path:
    """Pictures under new names, and files with labels."""
    root.mkdir(parents=True)
    rows = []
    for part, label, file in pictures_of(plain):
        target = root / name_of(part, label, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        rows.append((part, rows_of(part, label, target.relative_to(root))))
    for name in files:
        with open(root / name, "w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(header)
            writer.writerows(row for part, row in rows if len(files) == 1 or name.startswith(part))
    return root


def labels_csv(plain: Path, root: Path) -> Path:
    return table(
        plain, root, lambda p, k, f: f"images/{k}_{p}_{f.name}", ["path", "label", "split"],
        lambda p, k, path: (path.as_posix(), k, p),
    )  # fmt: skip


def kaggle(plain: Path, root: Path) -> Path:
    """Ids without extension, files with labels for each part."""
    return table(
        plain, root, lambda p, k, f: f"{p}/{k}{f.name}", ["id", "breed"], lambda p, k, path: (path.stem, k),
        files=("train_labels.csv", "val_labels.csv", "test_labels.csv"),
    )  # fmt: skip


def json_lines(plain: Path, root: Path) -> Path:
    labels_csv(plain, root)
    with open(root / "labels.csv") as file:
        rows = list(csv.DictReader(file))
    (root / "labels.csv").unlink()
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def flat(plain: Path, root: Path) -> Path:
    root.mkdir()
    for part, label, file in pictures_of(plain):
        shutil.copy(file, root / f"{part}-{label}-{file.name}")
    return root


def zipped(plain: Path, root: Path) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(plain.rglob("*.png")):
            archive.write(file, Path("inside") / file.relative_to(plain))
        archive.writestr("__MACOSX/inside/._000.png", b"junk")
    return path


def tarred(plain: Path, root: Path) -> Path:
    path = root.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        archive.add(plain, "./inside")
    return path


def rows_for_tables(plain: Path, part: str) -> dict:
    files = [(label, file) for p, label, file in pictures_of(plain) if p == part]
    names = sorted({label for label, _ in files})
    images = [{"bytes": file.read_bytes(), "path": file.name} for _, file in files]
    return {"image": images, "label": [names.index(label) for label, _ in files]}


def schema_for_tables(plain: Path):
    pyarrow = pytest.importorskip("pyarrow")
    names = sorted({label for _, label, _ in pictures_of(plain)})
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    return pyarrow.schema([("image", image), ("label", pyarrow.int64())]).with_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def parquet(plain: Path, root: Path) -> Path:
    schema = schema_for_tables(plain)
    import pyarrow
    import pyarrow.parquet

    (root / "data").mkdir(parents=True)
    for part, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = pyarrow.table(rows_for_tables(plain, part), schema)
        pyarrow.parquet.write_table(rows, root / "data" / f"{name}-00000-of-00001.parquet", row_group_size=5)
    return root


def arrow(plain: Path, root: Path) -> Path:
    schema = schema_for_tables(plain)
    import pyarrow

    for part in PARTS:
        (root / part).mkdir(parents=True)
        rows = pyarrow.table(rows_for_tables(plain, part), schema)
        file = pyarrow.OSFile(str(root / part / "data-00000-of-00001.arrow"), "wb")
        with file, pyarrow.ipc.new_stream(file, schema) as out:
            out.write_table(rows, max_chunksize=5)
    (root / "dataset_dict.json").write_text(json.dumps({"splits": [*PARTS]}))
    return root


def shards(plain: Path, root: Path) -> Path:
    """Two tar files for each part, mixed, with the number of the class beside each picture."""
    files = pictures_of(plain)
    classes = sorted({label for _, label, _ in files})
    for part in PARTS:
        own = [(f"{label}/{file.stem}", classes.index(label), file) for p, label, file in files if p == part][::-1]
        for number in range(2):
            samples = [(key, {"png": file.read_bytes(), "cls": label}) for key, label, file in own[number::2]]
            write_shard(root / f"pets-{part}-{number:06}.tar", samples)
    (root / "classes.txt").write_text("\n".join(classes))
    return root


LAYOUTS = {
    "other_case": (renamed({"train": "Train", "val": "Valid", "test": "TEST"}), {}),
    "sets": (renamed({"train": "training_set", "val": "dev", "test": "test_set"}), {}),
    "twice": (renamed({"train": "seg_train/seg_train", "val": "seg_val/seg_val", "test": "seg_test/seg_test"}), {}),
    "wrapped": (renamed({"train": "a/b/train2017", "val": "a/b/val2017", "test": "a/b/test2017"}), {}),
    "own_names": (renamed({"train": "one", "val": "two", "test": "three"}),
                  {"parts": {"train": "one", "val": "two", "test": ["three"]}}),
    "class_first": (class_first, {}),
    "labels_csv": (labels_csv, {}),
    "kaggle": (kaggle, {}),
    "json_lines": (json_lines, {}),
    "flat": (flat, {"pattern": "{part}-{class}-*.png"}),
    "zip": (zipped, {}),
    "tar": (tarred, {}),
    "parquet": (parquet, {}),
    "arrow": (arrow, {}),
    "shards": (shards, {}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_numbers_of_the_plain_one(plain, tmp_path, layout):
    make, options = LAYOUTS[layout]
    root = make(plain, tmp_path / "made")
    before = sorted(tmp_path.rglob("*"))
    data = opened(root, cache=str(tmp_path / "cache"), **options)
    assert numbers(data) == numbers(opened(plain))
    assert data.name == "made"
    written = [p for p in tmp_path.rglob("*") if p not in before and not p.is_relative_to(tmp_path / "cache")]
    assert not written  # nothing is unpacked


@pytest.mark.parametrize("layout", ["zip", "tar", "parquet", "labels_csv", "shards"])
def test_workers_read_in_place(plain, tmp_path, layout):
    make, options = LAYOUTS[layout]
    root = make(plain, tmp_path / "made")
    held, streamed = opened(root, **options), opened(root, from_files=True, num_workers=2, **options)
    streamed.normaliser = held.normaliser
    for a, b in zip(held.val_dataloader(), streamed.val_dataloader(), strict=True):
        assert a.images.equal(b.images)


def test_class_folders_alone_in_any_form_are_split_alike(plain, tmp_path):
    expected = numbers(opened(plain / "train"))
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        for file in sorted((plain / "train").rglob("*.png")):
            archive.write(file, file.relative_to(plain / "train"))
    assert numbers(opened(tmp_path / "train.zip"))[1:] == expected[1:]


# P1: names of parts


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"), ("Training", "train"), ("TRAIN", "train"), ("seg_train", "train"), ("trainset", "train"),
        ("training_set", "train"), ("TrainingSet", "train"), ("train2017", "train"), ("images-train", "train"),
        ("val", "val"), ("dev", "val"), ("eval", "val"), ("Validation", "val"), ("valid_images", "val"),
        ("test", "test"), ("test_set", "test"), ("seg_test", "test"), ("Testing", "test"), ("tst", "test"),
        ("freight_train", None), ("contest", None), ("devil", None), ("trainer", None), ("train_test", None),
        ("value", None), ("cat", None),
    ],
)  # fmt: skip
def test_part_names(name, part):
    assert part_of(name) == part


def test_an_unknown_folder_beside_parts_is_asked_about(plain, tmp_path):
    root = renamed({"train": "train", "test": "holdout"})(plain, tmp_path / "p")
    with pytest.raises(InputError, match=r"p has train/ \(train\) and the folder holdout/: say what it is"):
        opened(root)
    assert len(opened(root, parts={"train": "train", "test": "holdout"}).test) == 6
    assert opened(root, parts={"ignore": "holdout"}).test is None
    (root / "holdout").rename(root / "train_2")
    with pytest.raises(InputError, match="both look like the train part"):
        opened(root)


@pytest.mark.parametrize("names", [("alpha", "beta"), ("freight_train", "my_test")])
def test_folders_that_look_like_parts_are_asked_about(plain, tmp_path, names):
    root = renamed(dict(zip(("train", "test"), names, strict=True)))(plain, tmp_path / "p")
    with pytest.raises(InputError, match=f"p has {names[0]}/ and {names[1]}/ .*say which part"):
        opened(root)
    assert opened(root, parts={"train": "."}).class_names == sorted(names)


def test_pictures_without_a_class_are_not_lost_in_silence(plain, tmp_path):
    root = renamed({"train": "train"})(plain, tmp_path / "p")
    (root / "test").mkdir()
    for number, (_, _, file) in enumerate(pictures_of(plain)[:3]):
        shutil.copy(file, root / "test" / f"{number}.png")
    assert any("test/ has 3 pictures and no class folders" in note for note in opened(root).layout.warnings)
    shutil.rmtree(root / "train")
    (root / "test").rename(root / "train")
    with pytest.raises(InputError, match="no class folders: add a CSV file"):
        opened(root)


def test_labels_that_are_wrong_are_named(plain, tmp_path):
    root = labels_csv(plain, tmp_path / "p")
    good = (root / "labels.csv").read_text()

    def refused(text: str, match: str, **options) -> None:
        (root / "labels.csv").write_text(text)
        with pytest.raises(InputError, match=match) as caught:
            opened(root, **options)
        assert len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)

    refused(good.replace("class_000_train_003.png", "gone.png"), r"labels\.csv, line \d+: .*gone\.png: no picture")
    refused(good.replace("path,label,split", "a,b,c"), "which column .* is the class")
    refused(good, "data.columns names label: kind", columns={"label": "kind"})
    refused(good, "data.columns has klass", columns={"klass": "label"})
    refused(good, "data.labels names other.csv", labels="other.csv")
    refused(good.replace("class_001,train", "class_001,practice", 1), "split is 'practice'")
    refused(good + good.splitlines()[1].replace("class_000,", "class_001,"), "elsewhere")
    refused("path,label\n", "no rows")
    refused(good.replace("images/class_000_train_003.png", "../../etc/passwd.png"), "no picture of data.root")
    refused(good, "do not have the form", pattern="x{class}*")
    refused(good, "give {class} once", pattern="*.png")


def test_labels_beside_class_folders_must_agree(plain, tmp_path):
    root = tmp_path / "p"
    shutil.copytree(plain / "train", root)
    files = sorted(root.rglob("*.png"))
    rows = [f"{file.relative_to(root)},{file.parent.name}\n" for file in files]
    (root / "labels.csv").write_text("path,label\n" + "".join(rows))
    assert numbers(opened(root))[1] == numbers(opened(plain / "train"))[1]
    (root / "labels.csv").write_text("path,label\n" + "".join(rows).replace("class_000\n", "kind\n"))
    with pytest.raises(InputError, match=r"by its folder and kind in labels\.csv: give data\.labels"):
        opened(root)
    assert opened(root, labels="labels.csv").class_names == ["class_001", "class_002", "kind"]
    (root / "labels.csv").write_text("when,who\n1,2\n")
    assert opened(root).num_classes == 3  # it holds something else


def test_archives_that_lead_out_or_grow_are_refused(tmp_path, plain):
    for name in ("../out.png", "/etc/out.png", "a/../../out.png", "c:\\out.png"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, b"x")
        with pytest.raises(InputError, match="leads out of it"):
            ImageFolder(str(tmp_path / "a.zip")).class_names  # noqa: B018
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        with pytest.raises(InputError, match="leads out of it"):
            ImageFolder(str(tmp_path / "a.tar")).class_names  # noqa: B018
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/0.png", bytes(50 << 20))
    with pytest.raises(InputError, match="more than 200 times"):
        ImageFolder(str(tmp_path / "b.zip")).class_names  # noqa: B018
    with tarfile.open(tmp_path / "c.tar", "w") as archive:
        link = tarfile.TarInfo("cat/0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InputError, match="0 class folders"):
        ImageFolder(str(tmp_path / "c.tar")).class_names  # noqa: B018
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as archive:
        archive.add(plain, "p")
    with pytest.raises(InputError, match="compressed as a whole"):
        ImageFolder(str(tmp_path / "d.tar.gz")).class_names  # noqa: B018
    whole = zipped(plain, tmp_path / "e").read_bytes()
    (tmp_path / "e.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="no folder, zip or tar"):
        ImageFolder(str(tmp_path / "e.zip")).class_names  # noqa: B018


def test_a_zip_is_opened_once_in_each_process(plain, tmp_path):
    store = ZipStore(zipped(plain, tmp_path / "z"))
    name = store.listing().files[0]
    assert store.read(name) == (plain / Path(*Path(name).parts[1:])).read_bytes()


def test_tables_that_are_damaged_or_lack_labels_are_named(plain, tmp_path):
    root = parquet(plain, tmp_path / "p")
    file = root / "data" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"train-00000-of-00001\.parquet cannot be read"):
        opened(root)
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": [b"x"], "text": ["y"]}), file)
    with pytest.raises(InputError, match="has the columns image, text"):
        opened(root)


# P5: classes that a part lacks, or has more


def test_a_part_that_lacks_a_class_or_has_one_more(plain, tmp_path, capsys):
    root = renamed({"train": "train", "val": "val", "test": "test"})(plain, tmp_path / "p")
    shutil.rmtree(root / "val" / "class_001")
    write_pictures(root / "test" / "more", 1, 2, size=16)
    (root / "test" / "more" / "class_000").rename(root / "test" / "class_new")
    shutil.rmtree(root / "test" / "more")
    with pytest.raises(InputError, match="the test part of .* has classes that are not trained on: class_new"):
        opened(root)
    data = opened(root, other_classes="leave_out")
    assert len(data.test) == 6
    assert data.val.labels.unique().tolist() == [0, 2]
    said = capsys.readouterr().err
    assert "the val part lacks the class class_001" in said
    assert "the test part has the class class_new, which are not trained on" in said


def test_labels_of_tables_without_names(tmp_path, plain):
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    rows = rows_for_tables(plain, "train")
    table = pyarrow.table({"img": [r["bytes"] for r in rows["image"]], "fine_label": [f"k{k}" for k in rows["label"]]})
    (tmp_path / "p").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "p" / "all.parquet")
    data = opened(tmp_path / "p", val_size=0)
    assert data.class_names == ["k0", "k1", "k2"]
    assert torch.equal(data.train.source.images, opened(plain).train.source.images)


def test_parts_in_one_folder_have_caches_of_their_own(plain, tmp_path):
    root = labels_csv(plain, tmp_path / "p")
    opened(root, cache=str(tmp_path / "c"))
    before = sorted((tmp_path / "c").iterdir())
    assert len(before) == 3
    opened(root, cache=str(tmp_path / "c"))
    assert sorted((tmp_path / "c").iterdir()) == before


def test_a_group_of_a_parquet_file_is_read_once_for_its_rows(plain, tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    data = opened(parquet(plain, tmp_path / "made"), from_files=True)
    read = []
    original = pyarrow.ParquetFile.read_row_group
    monkeypatch.setattr(
        pyarrow.ParquetFile, "read_row_group", lambda *args, **kwargs: read.append(args[1]) or original(*args, **kwargs)
    )
    pictures = data.train.source.pictures
    tables.row_group.cache_clear()
    for position in range(len(pictures)):
        pictures.decode(position)
    assert len(read) == 5  # 24 rows, five in a group
    assert any("a group of up to 5 rows" in note for note in data.layout.notes)
    rows = data.layout.parts["train"].names
    assert [pictures.store.read(name)[:4] for name in rows] == [b"\x89PNG"] * 24


# A part is not lost, and no test picture is trained on


def counts(data: ImageFolder) -> tuple[int, ...]:
    return tuple(0 if split is None else len(split.taken) for split in (data.train, data.val, data.test))


@pytest.mark.parametrize("place", ["in each part", "above"])
def test_labels_files_of_one_name_belong_to_the_parts_of_their_folders(plain, tmp_path, place):
    """As Hugging Face's image folders: train/metadata.jsonl and test/metadata.jsonl; or one file above the parts."""
    rows: dict[str, list[dict]] = {}
    for part, kind, file in pictures_of(plain):
        name = f"{kind}_{file.name}"
        (tmp_path / part).mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / part / name)
        where, path = (f"{part}/", name) if place == "in each part" else ("", f"{part}/{name}")
        rows.setdefault(f"{where}metadata.jsonl", []).append({"file_name": path, "label": kind})
    for name, of_file in rows.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in of_file))
    assert counts(opened(tmp_path)) == tuple(3 * count for count in PARTS.values())


def test_a_column_of_parts_with_other_values_is_asked_about(plain, tmp_path):
    shutil.copytree(plain / "train", tmp_path, dirs_exist_ok=True)
    files = sorted(tmp_path.glob("*/*.png"))
    usage = ["Training", "PublicTest", "PrivateTest"]
    lines = [f"{f.parent.name}/{f.name},{f.parent.name},{usage[i % 3]}\n" for i, f in enumerate(files)]
    (tmp_path / "all.csv").write_text("path,label,Usage\n" + "".join(lines))
    with pytest.raises(InputError, match=r"column Usage name a part, and others do not \('PublicTest'\): write train"):
        opened(tmp_path, labels="all.csv")


def test_parts_of_a_labels_file_beside_class_folders_are_asked_about(plain, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(plain / "train", root, dirs_exist_ok=True)
    files = sorted(root.glob("*/*.png"))
    parts = ["test" if i % 4 == 0 else "train" for i in range(len(files))]
    lines = [f"{f.parent.name}/{f.name},{f.parent.name},{part}\n" for f, part in zip(files, parts, strict=True)]
    (root / "split.csv").write_text("path,label,split\n" + "".join(lines))
    with pytest.raises(InputError, match=r"split.csv has a part test, and the class folders have none: give data.lab"):
        opened(root)
    assert opened(root, labels="split.csv").test.labels.numel() == parts.count("test")
    assert opened(root, parts={"train": "."}).test is None


@pytest.mark.parametrize("option", [{"pattern": "{class}_*.png"}, {"labels": "labels.csv"}])
def test_parts_are_not_ignored(plain, tmp_path, option):
    with pytest.raises(InputError, match="data.parts is for class folders"):
        opened(plain, parts={"train": "train", "test": "val"}, **option)


def test_a_linked_part_is_a_part(plain, tmp_path):
    """As `ln -s val test`; a link to a folder above is passed over."""
    for part in ("train", "val"):
        shutil.copytree(plain / part, tmp_path / part)
    (tmp_path / "test").symlink_to("val")
    (tmp_path / "train" / "class_000" / "again").symlink_to(tmp_path / "train" / "class_000")
    assert counts(opened(tmp_path)) == (24, 9, 9)


def test_a_table_of_no_known_part_is_asked_about(plain, tmp_path):
    pytest.importorskip("pyarrow")
    made = parquet(plain, tmp_path / "data")
    one = next(path for path in sorted(made.rglob("*.parquet")))
    shutil.copy(one, made / "extra-00000-of-00001.parquet")
    with pytest.raises(InputError, match="which part is extra-00000-of-00001.parquet"):
        opened(made)
    (made / "extra-00000-of-00001.parquet").unlink()
    with pytest.raises(InputError, match="leave data.parts and data.columns out"):
        opened(made, parts={"train": "train"})


def test_an_archive_that_is_replaced_is_read_anew(plain, tmp_path):
    for number, count in enumerate((3, 5)):
        write_pictures(tmp_path / f"made{number}" / "train", 2, count, size=16, seed=number)
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            for file in sorted((tmp_path / f"made{number}").rglob("*.png")):
                archive.write(file, file.relative_to(tmp_path / f"made{number}"))
        (tmp_path / "new.zip").replace(tmp_path / "data.zip")
        data = opened(tmp_path / "data.zip", val_size=0)
        assert len(data.train.taken) == 2 * count
