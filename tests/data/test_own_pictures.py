"""Pictures as people have them: turned, damaged, of 16 bits, in a single file; and what is said about them."""

import io
import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import distill, fit, train_loader, write_pictures
from PIL import Image

from distill_lightning import pillow_decoding
from distill_lightning.data import picture_files
from distill_lightning.data.contact_sheet import contact_sheet
from distill_lightning.data.decoding import decode
from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.picture_files import Pictures
from distill_lightning.data.stores import FolderStore
from distill_lightning.data.torchvision_sets import CIFAR100
from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import BadPictureError, read_header
from distill_lightning.values import BatchNeeds

SMALL = ("--model.network", "ConvNet", "--data.batch_size", 8, "--trainer.max_epochs", 1, "--data.augment", "[]")


def opened(root: Path, **options) -> ImageFolder:
    data = ImageFolder(str(root), **{"image_size": 16, "batch_size": 8, **options})
    data.setup("fit")
    return data


def saved(picture: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def photograph(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    return rough.resize((width, height), Image.Resampling.BICUBIC)


# P2: orientation


@pytest.mark.parametrize("size", [(40, 30), (400, 300)])  # by torchvision, and by Pillow at a part of the size
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_upright(format, size):
    picture = photograph(*size)
    upright = decode(saved(picture, format, **({"quality": 95} if format == "JPEG" else {})), 3, 24)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
        # Pillow's numbers: 0, 1 flip, 2, 3, 4 rotate by 90, 180, 270, 5 transpose, 6 transverse
        stored = picture if back is None else picture.transpose(Image.Transpose(back))
        data = saved(stored, format, exif=exif, **({"quality": 95} if format == "JPEG" else {}))
        assert (decode(data, 3, 24).int() - upright.int()).abs().float().mean() < 8, orientation
        assert (decode(data, 1, 24).shape, read_header(io.BytesIO(data)).width) == ((1, 24, 24), size[0])


def test_the_road_of_a_jpeg_depends_on_the_file_alone_and_gives_the_same_picture(monkeypatch):
    """Near the final size the values are those of Pillow, bit by bit."""
    data = saved(photograph(60, 45), "JPEG", quality=90)
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    wide = picture.resize((43, 32), Image.Resampling.BILINEAR).crop((5, 0, 37, 32))
    assert decode(data, 3, 32).equal(torch.from_numpy(np.array(wide)).permute(2, 0, 1))
    large = saved(photograph(1200, 900), "JPEG", quality=90)
    whole = Image.open(io.BytesIO(large)).convert("RGB").resize((43, 32), Image.Resampling.BILINEAR, reducing_gap=None)
    expected = torch.from_numpy(np.array(whole.crop((5, 0, 37, 32)))).permute(2, 0, 1)
    assert (decode(large, 3, 32).int() - expected.int()).abs().max() <= 6  # of 255, after a reduction by 8
    for channels, mode in ((1, "L"), (3, "RGB")):
        grey = saved(photograph(40, 40).convert("L"), "JPEG", quality=90)
        assert decode(grey, channels, 40).equal(
            torch.from_numpy(np.array(Image.open(io.BytesIO(grey)).convert(mode))).view(40, 40, -1).permute(2, 0, 1)
        )


def test_a_chosen_part_is_the_same_on_both_roads():
    for size in ((60, 45), (600, 450)):
        picture = photograph(*size)
        jpeg, png = saved(picture, "JPEG", quality=98), saved(picture)
        a, b = (decode(data, 3, 24, box=lambda w, h: (w // 4, h // 3, w // 2, h // 2)).int() for data in (jpeg, png))
        assert (a - b).abs().float().mean() < 4


# P3: bad files


def damaged(root: Path) -> Path:
    write_pictures(root, 2, 12, size=16)
    first, second = root / "class_000", root / "class_001"
    (first / "001.png").write_bytes(b"")
    (first / "003.png").write_bytes((first / "003.png").read_bytes()[:150])
    (second / "005.png").write_text("<html>not found</html>")
    (second / "notes.txt").write_text("taken in spring")
    (second / "torn.jpg").write_bytes(saved(photograph(40, 40), "JPEG")[:400])
    for junk in ("Thumbs.db", "desktop.ini", ".DS_Store", "._001.png", "Icon\r"):
        (second / junk).write_bytes(b"junk")
    (root / "__MACOSX" / "class_000").mkdir(parents=True)
    (root / "__MACOSX" / "class_000" / "._000.png").write_bytes(b"junk")
    return root


BAD = {
    "class_000/001.png": "empty", "class_000/003.png": "truncated", "class_001/005.png": "no picture",
    "class_001/notes.txt": "no picture", "class_001/torn.jpg": "truncated",
}  # fmt: skip


def test_all_bad_files_are_listed_at_once(tmp_path, capsys):
    root = damaged(tmp_path / "p")
    with pytest.raises(InputError, match=r"5 of 26 pictures in .* cannot be read \(2 truncated, 2 no picture, 1 empty"):
        opened(root)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{name}: {kind}" for name, kind in BAD.items()]


def test_bad_files_are_skipped_and_keep_their_index(tmp_path, capsys):
    root = damaged(tmp_path / "p")
    for _ in range(2):  # decoded, and from the cache
        data = opened(root, bad_pictures="skip", val_size=0)
        assert data.bad_files() == BAD
        assert len(data.train) == 21
        names = [name for name, _ in data.layout.parts["train"]]
        assert {names[i] for i in set(range(26)) - set(data.train.taken.tolist())} == set(BAD)
    assert "5 of 26 pictures of the train part cannot be read and are left out" in capsys.readouterr().err
    good = tmp_path / "good"
    shutil.copytree(root, good)
    for name in BAD:
        (good / name).unlink()
    clean = opened(good, val_size=0)
    assert data.normaliser.mean.equal(clean.normaliser.mean)
    assert data.train.source.images[data.train.taken].equal(clean.train.source.images)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_replace_a_bad_file_by_the_same_good_one_everywhere(tmp_path, workers, capsys):
    root = damaged(tmp_path / "p")
    options = {"bad_pictures": "skip", "val_size": 0, "from_files": True, "num_workers": workers}
    data = opened(root, **options)
    names = [name for name, _ in data.layout.parts["train"]]
    bad = {i for i, name in enumerate(names) if name in BAD}
    needs = BatchNeeds(views=2)
    seen = list(train_loader(data, needs=needs))
    assert not bad & set(torch.cat([batch.index for batch in seen]).tolist())
    assert data.bad_files() == BAD
    assert data.bad_files().keys() == BAD.keys()
    whole = train_loader(opened(root, **options), needs=needs)
    halves = [train_loader(opened(root, **options), rank, 2, needs=needs) for rank in range(2)]
    for alone, first, second in zip(whole, *halves, strict=True):
        assert alone.index[:8:2].equal(first.index[:4])
        assert alone.index[1:8:2].equal(second.index[:4])
        assert alone.index[:8].equal(alone.index[8:])  # the two views
        assert alone.labels.equal(data.train.labels[alone.index])
    held_out = opened(root, **options | {"val_size": 0.5})
    rows = torch.cat([batch.index for batch in held_out.val_dataloader()])
    assert set(rows.tolist()) == set(held_out.val.taken.tolist()) - bad
    with pytest.raises(InputError, match=r"(is no picture that can be read|truncated)"):
        list(train_loader(opened(root, **options | {"bad_pictures": "refuse"})))


def test_a_run_lists_bad_files(tmp_path, capsys):
    root = damaged(tmp_path / "p")
    given = ["--data.root", root, "--data.image_size", 16, "--data.val_size", 0, *SMALL]
    assert distill("fit", "--config", "folder/baseline", *given) == 2
    for more in ("false", "true"):
        capsys.readouterr()
        run = fit("folder/baseline.yaml", *given, "--data.bad_pictures", "skip", "--data.from_files", more)
        assert "16x16, as the files" in capsys.readouterr().out
        listed = (run / "bad_pictures.txt").read_text().splitlines()
        assert listed == [f"{name}: {kind}" for name, kind in BAD.items()]


# P6: 16 bits


def deep(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("I;16", values.shape[::-1], values.astype("<u2").tobytes()).save(path)


def write_colour_tiff(path: Path, values: np.ndarray) -> None:
    """A TIFF with colours of 16 bits, which Pillow reads but does not write. Values (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    high, wide, _ = values.shape
    content, tags = values.astype("<u2").tobytes(), 10
    place = 8 + 2 + 12 * tags + 4
    entries = [
        (256, 4, 1, wide), (257, 4, 1, high), (258, 3, 3, place), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, place + 6), (277, 3, 1, 3), (278, 4, 1, high), (279, 4, 1, len(content)), (284, 3, 1, 1),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", tags) + table + struct.pack("<I", 0)
    path.write_bytes(head + struct.pack("<HHH", 16, 16, 16) + content)


@pytest.mark.parametrize(("most", "bits"), [(65535, 16), (4095, 12)])
def test_a_tiff_with_colours_of_fewer_than_16_bits_is_refused(tmp_path, most, bits):
    """Pillow reads the upper byte of each value, which is right for 16 bits alone."""
    root = tmp_path / "p"
    for label in range(2):
        for number in range(4):
            values = np.linspace(0, most, 768).reshape(16, 16, 3).round()
            write_colour_tiff(root / f"class_{label}" / f"{number}.tif", values)
    if bits == 16:
        pictures = opened(root, val_size=0, batch_size=4).train.source.images
        assert pictures[0].flatten()[[0, -1]].tolist() == [0, 255]
    else:
        with pytest.raises(InputError, match="a deep TIFF"):
            opened(root, val_size=0, batch_size=4)
        assert opened(root, val_size=0, batch_size=4, bit_depth=16).train.source.images.max() == 15


@pytest.mark.parametrize("end", ["png", "tif"])
def test_pictures_of_16_bits_are_scaled_by_what_they_hold(tmp_path, end):
    root = tmp_path / "p"
    for label in range(2):
        for number in range(4):
            deep(np.full((16, 16), 200 * (label + 1) + number), root / f"class_{label}" / f"{number}.{end}")
    deep(np.linspace(0, 1023, 256).reshape(16, 16), root / "class_1" / f"9.{end}")
    data = opened(root, val_size=0, grey=True, batch_size=4)
    assert data.bit_depth == data.info.bit_depth == 10
    assert data.train.source.images[-1].flatten()[[0, -1]].tolist() == [0, 255]
    assert data.train.source.images[0, 0, 0, 0] == 200 * 255 // 1023
    assert (
        opened(root, val_size=0, grey=True, bit_depth=16, batch_size=4).train.source.images.max() == 1023 * 255 // 65535
    )


def test_colours_of_16_bits(tmp_path):
    """A PNG with 16 bits in three channels, of which Pillow sees the upper eight alone."""
    import struct
    import zlib

    values = (np.arange(4 * 4 * 3) * 21).reshape(4, 4, 3).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    expected = torch.from_numpy((values.astype(np.int64) * 255 // 1023).astype(np.uint8)).permute(2, 0, 1)
    assert decode(png, 3, 4, bits=10).equal(expected)
    assert read_header(io.BytesIO(png)).deep


# P9: size


@pytest.mark.parametrize(("size", "chosen"), [(20, 20), (32, 32), (75, 72), (300, 224)])
def test_the_size_follows_the_files(tmp_path, size, chosen):
    data = opened(write_pictures(tmp_path / "p", 2, 5, size=size), image_size=None)
    assert data.image_size == chosen
    assert data.info.image_size == chosen
    assert f"{chosen}x{chosen}, from the median of the files" in "\n".join(data.overview())


def test_what_another_size_costs_is_said(tmp_path):
    root = write_pictures(tmp_path / "p", 2, 12, size=32)
    assert "64x64, enlarged from 32: 4.0 times the computation" in "\n".join(opened(root, image_size=64).overview())
    assert "16x16, reduced from 32: 1/4.0 of the computation" in "\n".join(opened(root, image_size=16).overview())
    assert "32x32, as the files" in "\n".join(opened(root, image_size=32).overview())


# What is suspicious


def test_suspicious_things_are_said(tmp_path):
    root = tmp_path / "p"
    write_pictures(root / "train", 3, 12)
    write_pictures(root / "test", 3, 4, seed=1)
    shutil.copy(root / "train" / "class_000" / "001.png", root / "test" / "class_000" / "x.png")
    shutil.copy(root / "train" / "class_000" / "002.png", root / "train" / "class_001" / "y.png")
    for number in range(5, 12):
        (root / "train" / "class_002" / f"{number:03d}.png").unlink()
    Image.new("L", (32, 32), 7).save(root / "train" / "class_002" / "000.png")
    (root / "train" / "loose.png").write_bytes((root / "train" / "class_000" / "000.png").read_bytes())
    said = "\n".join(opened(root, val_size=0).overview())
    assert "1 pictures of test are also in train, such as test/class_000/x.png = train/class_000/001.png" in said
    assert "1 pictures have two classes, such as train/class_000/002.png = train/class_001/y.png" in said
    assert "classes with fewer than 10 training pictures: class_002 (5)" in said
    assert "1 of 30 pictures that were looked at are grey among colour" in said
    assert "1 pictures lie in train/, in no class folder: not used" in said
    assert "train: 30 pictures (class_000 12, class_001 13, class_002 5)" in said


def test_the_verb_shows_the_data_and_draws_a_sheet(pictures, tmp_path, capsys):
    given = ["--data.root", pictures, "--data.image_size", 16, "--data.augment", "[RandomFlip]"]
    assert distill("data", "folder/baseline", *given, "--count", 20) == 0
    said = capsys.readouterr().out
    assert "pictures: 3 classes, pictures 3x16x16" in said
    assert "test:  18 pictures" in said
    assert "sheet: contact_sheet.png" in said
    assert Image.open("contact_sheet.png").size == (8 * (96 + 4), 3 * (96 + 14 + 4))
    assert distill("data", pictures, "--sheet", "s.png") == 0
    assert Path("s.png").exists()
    assert "pictures 3x20x20" in capsys.readouterr().out
    assert distill("data", *given, "--config", "folder/baseline", "--count", 0) == 0
    assert "pictures 3x16x16" in capsys.readouterr().out
    shutil.copytree(pictures, "damaged")
    next(Path("damaged/train").glob("*/*.png")).write_bytes(b"\x89PNG")
    assert distill("data", "damaged", "--count", 0) == 0
    assert "1 of" in "".join(capsys.readouterr())
    assert distill("data", pictures, "--data.image_size", 3) == 2
    assert distill("data", tmp_path / "none") == 2


def test_the_sheet_shows_what_the_network_sees(pictures):
    data = opened(pictures)
    sheet = np.array(Image.open(io.BytesIO(contact_sheet(data, 8))))
    batch = next(iter(train_loader(data)))
    pixels = data.train.source.images[batch.index[0]].permute(1, 2, 0).numpy()
    assert (sheet[:96:6, :96:6] == pixels).all()


# P4, P7, P8: the verbs


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A checkpoint of three classes, and its pictures beside it in ``pets``."""
    folder = tmp_path_factory.mktemp("trained")
    write_pictures(folder / "pets" / "train", 3, 16, size=16)
    write_pictures(folder / "pets" / "test", 3, 4, size=16, seed=1)
    before = Path.cwd()
    os.chdir(folder)
    try:
        run = fit("folder/baseline.yaml", "--data.root", folder / "pets", "--data.image_size", "null", *SMALL)
    finally:
        os.chdir(before)
    return folder / run / "checkpoints" / "last.ckpt"


def rows_of(capsys) -> list[str]:
    path = capsys.readouterr().out.rpartition("predictions: ")[2].strip()
    return Path(path).read_text(errors="surrogateescape").splitlines()[1:]


def test_predictions_go_on_past_bad_files(trained, tmp_path, capsys):
    root = damaged(tmp_path / "p")
    assert distill("predict", "--ckpt_path", trained, "--data.pictures", root) == 2
    said = capsys.readouterr()
    assert "4 of 25 pictures could not be read" in said.err  # notes.txt does not look like a picture
    assert "class_000/003.png: truncated" in said.err
    path = Path(said.out.rpartition("predictions: ")[2].strip())
    assert len(path.read_text().splitlines()) == 1 + 21


def test_a_picture_and_a_list_are_predicted(trained, tmp_path, capsys):
    root = write_pictures(tmp_path / "p", 2, 3, size=20)
    one = root / "class_000" / "000.png"
    assert distill("predict", "--ckpt_path", trained, "--data.pictures", one) == 0
    (alone,) = rows_of(capsys)
    assert alone.startswith(f"{one},")
    several = f"[{one}, {root / 'class_001'}]"
    assert distill("predict", "--ckpt_path", trained, "--data.pictures", several) == 0
    assert len(rows_of(capsys)) == 4
    assert distill("predict", "--ckpt_path", trained, "--data.pictures", f"[{one}, gone.png]") == 2
    assert "gone.png: a link to nothing" in capsys.readouterr().err
    assert distill("predict", "--ckpt_path", trained, "--data.pictures", tmp_path / "none") == 2
    (tmp_path / "x.png").write_text("no picture")
    assert distill("predict", "--ckpt_path", trained, "--data.pictures", tmp_path / "x.png") == 2
    assert "none of the 1 pictures can be read" in capsys.readouterr().err


def test_a_folder_with_a_test_part_alone_or_class_folders_alone_is_tested(trained, tmp_path, capsys):
    pets = trained.parents[5] / "pets"
    assert distill("test", "--ckpt_path", trained) == 0
    expected = capsys.readouterr().out
    shutil.copytree(pets / "test", tmp_path / "a" / "test")
    assert distill("test", "--ckpt_path", trained, "--data.root", tmp_path / "a") == 0
    assert capsys.readouterr().out == expected
    assert distill("test", "--ckpt_path", trained, "--data.root", tmp_path / "a" / "test") == 0
    assert capsys.readouterr().out == expected
    # the pictures that it was trained on are no test part
    shutil.copytree(pets / "train", tmp_path / "b")
    assert distill("test", "--ckpt_path", trained, "--data.root", tmp_path / "b") == 2
    assert "has no test part" in capsys.readouterr().err


def test_other_classes_than_trained_on_are_named(trained, tmp_path, capsys):
    root = write_pictures(tmp_path / "p", 4, 3, size=16)
    assert distill("test", "--ckpt_path", trained, "--data.root", root) == 2
    said = capsys.readouterr().err
    assert "was trained on other classes than p has: it also has class_003" in said
    assert len(said.splitlines()) == 1
    assert distill("test", "--ckpt_path", trained, "--data.root", root, "--data.other_classes", "leave_out") == 0
    shutil.rmtree(root / "class_002")
    shutil.rmtree(root / "class_003")
    assert distill("test", "--ckpt_path", trained, "--data.root", root) == 0
    assert "lacks the class class_002" in capsys.readouterr().err
    for name in ("class_000", "class_001"):
        (root / name).rename(root / name.replace("class", "kind"))
    assert distill("test", "--ckpt_path", trained, "--data.root", root) == 2
    assert "it lacks class_000, class_001, class_002; it also has kind_000, kind_001" in capsys.readouterr().err


def test_a_link_to_nothing_is_listed_with_the_others(tmp_path):
    root = write_pictures(tmp_path / "p", 2, 4)
    (root / "class_001" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(BadPictureError):
        Pictures(FolderStore(root), ["class_001/gone.png"], 3, 8).decode(0)
    assert len(opened(root, bad_pictures="skip", val_size=0).train) == 8


def test_the_cache_keeps_the_list_of_bad_files(tmp_path, monkeypatch):
    root = damaged(tmp_path / "p")
    opened(root, bad_pictures="skip", cache=str(tmp_path / "c"))
    (listed,) = (tmp_path / "c").glob("*.bad.json")
    assert sorted(json.loads(listed.read_text()).values()) == sorted(BAD.values())
    monkeypatch.setattr(picture_files, "decode", None)  # nothing is decoded again
    with pytest.raises(InputError, match="5 of 26"):
        opened(root, cache=str(tmp_path / "c"))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_bench_says_which_stage_is_the_limit(pictures, capsys, workers):
    given = ["--data.root", pictures, "--data.from_files", "true", "--data.num_workers", workers, *SMALL]
    given += ["--data.augment", "[RandomResizedCrop, RandomFlip]"]
    assert distill("bench", "--config", "folder/baseline", *given, "--stages", "true", "--turns", 4, "--steps", 4) == 0
    said = capsys.readouterr().out
    result = json.loads(said.splitlines()[-1])
    stages = {name: result[f"{name}_s"] for name in ("decode", "transfer", "augment", "train")}
    assert all(seconds > 0 for seconds in stages.values())
    assert result["workers"] == workers
    assert result["workers_needed"] >= 1
    if not workers:
        assert result["limit"] == max(stages, key=stages.get)
    assert "the limit is: " in said
    assert not Path("logs").exists()


@pytest.mark.parametrize("place", ["before", "alone"])
def test_an_orientation_in_xmp_is_that_of_pillow(place):
    """torchvision reads the first segment of EXIF alone."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8).repeat(2, 0))
    picture = picture.resize((60, 40), Image.Resampling.BILINEAR)
    exif, written = Image.Exif(), io.BytesIO()
    exif[274] = 6
    picture.save(written, "JPEG", quality=95, exif=exif if place == "before" else Image.Exif())
    inner = b' tiff:Orientation="6"' if place == "alone" else b""
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/'
    xmp += b'1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"' + inner
    xmp += b"/></rdf:RDF></x:xmpmeta>"
    content = written.getvalue()
    content = content[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + content[2:]
    assert pillow_decoding.orientation(pillow_decoding.open_picture(io.BytesIO(content))) == 6
    for size in (32, 16):
        pixels = decode(content, 3, size)
        expected = torch.from_numpy(pillow_decoding.decode(content, 3, size))
        assert (pixels.int() - expected.int()).abs().max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_torchvisions_pictures_are_turned_as_pillow_turns_them(orientation):
    ramp = np.linspace(0, 255, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8)
    exif, written = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    Image.fromarray(ramp).save(written, "JPEG", quality=95, exif=exif)
    for box in (None, lambda wide, high: (3, 5, 30, 32)):
        of_torchvision = decode(written.getvalue(), 3, 32, box=box)
        opened = pillow_decoding.open_picture(io.BytesIO(written.getvalue()))
        place = None if box is None else box(*pillow_decoding.upright_size(opened))
        of_pillow = pillow_decoding.decoded_by_pillow(opened, written.getvalue(), 3, 32, 16, place)
        assert np.abs(pillow_decoding.as_pixels(of_pillow).astype(int) - of_torchvision.numpy()).max() <= 4


def test_a_file_that_cannot_be_read_now_is_read_again_later(tmp_path, monkeypatch):
    """A disk that fails once is no damaged picture; nothing of it is kept in the cache."""
    write_pictures(tmp_path / "data" / "train", 2, 4, size=16)
    original = FolderStore.read

    def fails(store, name):
        if name.endswith("class_000/003.png"):
            raise OSError(5, "Input/output error")
        return original(store, name)

    with monkeypatch.context() as patch, pytest.raises(InputError, match="class_000/003.png"):
        patch.setattr(FolderStore, "read", fails)
        ImageFolder(str(tmp_path / "data"), image_size=16, cache=str(tmp_path / "cache")).setup("fit")
    ImageFolder(str(tmp_path / "data"), image_size=16, cache=str(tmp_path / "cache")).setup("fit")


def test_training_pictures_are_no_test_part_because_one_is_gone(tmp_path, capsys):
    """Class folders alone are a test part for a network of other data, not for one that was trained on them."""
    root = write_pictures(tmp_path / "data", 2, 20, size=16)
    given = ["--data", "ImageFolder", "--data.root", root, "--data.image_size", 16, "--trainer.max_epochs", 1]
    run = fit("folder/baseline.yaml", *given)
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert distill("test", "--ckpt_path", checkpoint) == 2
    before = capsys.readouterr().err
    (root / "class_000" / "003.png").unlink()
    assert distill("test", "--ckpt_path", checkpoint) == 2
    assert "has no test part" in before and "has no test part" in capsys.readouterr().err
    other = write_pictures(tmp_path / "other", 2, 5, size=16, seed=1)
    assert distill("test", "--ckpt_path", checkpoint, "--data.root", other) == 0
    anew = ["--data.root", other, "--reestimate_batch_norm", 10]
    assert distill("test", "--ckpt_path", checkpoint, *anew) == 2
    assert "is a test part alone, and batch norm is estimated on training pictures" in capsys.readouterr().err


def test_class_folders_of_cifar_100_are_the_numbers_of_its_classes(tmp_path):
    """2 comes before 10, as the names of the classes say."""
    for part in ("train", "test"):
        for label in range(100):
            folder = tmp_path / "cifar100" / part / str(label)
            folder.mkdir(parents=True)
            Image.fromarray(np.full((32, 32, 3), label, np.uint8)).save(folder / "0.png")
    data = CIFAR100(str(tmp_path), val_size=0)
    source, labels = data.read("train")
    assert source.images[:, 0, 0, 0].tolist() == labels.tolist() and sorted(labels.tolist()) == list(range(100))
