"""Prediction with an exported file: as `distill predict` with the run, without torch; damaged files are refused."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import distill

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from distill_lightning.errors import InputError
from distill_lightning.exported import ExportedClassifier
from distill_lightning.exporting import export, parity
from distill_lightning.predictions import Predictions

WITHOUT_TORCH = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "lightning", "jsonargparse", "rich", "onnx", "scipy"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
from distill_lightning.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def model(run, tmp_path, trained, monkeypatch) -> Path:
    """The run as an ONNX file, made once and then linked."""
    made = trained / "m.onnx"
    if not made.exists():
        monkeypatch.setattr(parity, "TIMED_S", 0.0)
        export(run, out=made, pictures=70)
    return made


def table(file: Path) -> list[list[str]]:
    return list(csv.reader(file.open()))


def test_the_csv_is_that_of_the_run_and_needs_no_torch(model, run, photos):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "predict", str(model), str(photos)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "predictions: predictions-photos.csv\n", "")
    assert distill("predict", "--ckpt_path", run / "checkpoints/last.ckpt", "--data.pictures", photos) == 0
    found, expected = table(Path("predictions-photos.csv")), table(run / "predictions-photos.csv")
    assert found[0] == expected[0]
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    numbers = [np.array([row[3:] for row in rows[1:]], float) for rows in (found, expected)]
    np.testing.assert_allclose(*numbers, atol=1e-5)


def test_files_and_folders_together(model, photos, capsys):
    assert distill("predict", model, photos / "3.png", photos, "--out", "some.csv", "--batch_size", 3) == 0
    rows = table(Path("some.csv"))
    assert [row[0] for row in rows[1:]] == [str(photos / "3.png"), *(str(photos / f"{n}.png") for n in range(7))]
    assert rows[1][1:] == rows[5][1:]


def test_the_class_gives_predictions(model, photos):
    classifier = ExportedClassifier(model, threads=1)
    assert repr(classifier) == "ExportedClassifier(10 classes, onnx, made from a)"
    found = classifier.predict(photos, batch_size=3)
    assert isinstance(found, Predictions)
    assert len(found) == 7
    assert found.files == [f"{n}.png" for n in range(7)]
    np.testing.assert_allclose(found.probs.sum(1), 1, atol=1e-6)
    assert [row.name for row in found] == found.classes
    assert found[2].prob == found.probs[2].max()
    assert "<td>0.png</td>" in found._repr_html_()
    alone = classifier.predict(photos, batch_size=1)
    np.testing.assert_allclose(alone.probs, found.probs, atol=1e-6)


def test_a_damaged_file_is_refused_wherever_it_is_damaged(model, tmp_path):
    content = model.read_bytes()
    bad = tmp_path / "bad.onnx"
    for place in (0, 100, len(content) // 2, len(content) - 70, len(content) - 5):
        bad.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"bad\.onnx is (damaged|torn)"):
            ExportedClassifier(bad)
    for length in (0, 10, len(content) // 2, len(content) - 1):
        bad.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"bad\.onnx is (damaged|torn)"):
            ExportedClassifier(bad)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none.onnx", "{photos}"], "there is no file none.onnx"),
        (["{model}"], "required: PICTURES"),
        (["{model}", "nowhere"], "there is no picture or folder nowhere"),
        (["{model}", "empty"], "there are no pictures in empty"),
        (["{model}", "text.png"], "text.png is no picture"),
        (["text.onnx", "{photos}"], "text.onnx is torn, or no ONNX file of this program"),
        (["{model}", "{photos}", "--batch_size", "0"], "must be 1 or more"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line_and_leaves_nothing(args, words, model, photos, capsys):
    Path("empty").mkdir()
    for name in ("text.png", "text.onnx"):
        Path(name).write_text("text")
    before = set(Path().iterdir())
    assert distill("predict", *(a.format(model=model, photos=photos) for a in args)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert set(Path().iterdir()) == before


def test_pictures_that_cannot_be_read_do_not_take_the_others_along(model, photos, capsys):
    pictures = Path("some")
    shutil.copytree(photos, pictures)
    (pictures / "2.png").write_bytes((pictures / "2.png").read_bytes()[:40])
    (pictures / "text.png").write_text("text")
    assert distill("predict", model, pictures, "--batch_size", 3) == 2
    *listed, last = capsys.readouterr().err.splitlines()
    assert [line.partition(" is ")[0] for line in listed] == ["some/2.png", "some/text.png"]
    assert last == "distill: 2 of 8 pictures could not be read: predictions-some.csv has the others"
    assert [row[0] for row in table(Path("predictions-some.csv"))[1:]] == [f"{n}.png" for n in (0, 1, 3, 4, 5, 6)]
    classifier, unread = ExportedClassifier(model), {}
    found = classifier.predict(pictures, unread=unread)
    assert (found.files, list(unread)) == ([f"{n}.png" for n in (0, 1, 3, 4, 5, 6)], ["2.png", "text.png"])
    with pytest.raises(InputError, match=r"2\.png is no picture"):
        classifier.predict(pictures)
