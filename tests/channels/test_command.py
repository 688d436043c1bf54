"""``distill channels``: a page without addresses or scripts, figures, and one line for what is wrong."""

import re
from pathlib import Path

import pytest
from helpers import distill, fit


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("channels"))
        return fit("digits/baseline.yaml", "--trainer.max_epochs", 2, "--data.train_part", 320).absolute()


def test_the_page_and_the_figure(run, capsys):
    given = ["--layer", "0", "--count", 3, "--class", "3", "--out", "page.html"]
    assert distill("channels", run, *given, "--figure", "channels.svg") == 0
    shown = capsys.readouterr().out
    assert "0: 16 channels" in shown and "a cell sees 3 x 3 of 8 x 8 pixels" in shown and "page: page.html" in shown
    page = Path("page.html").read_text()
    assert page.count('<div class="channel">') == 3
    assert "<script" not in page and "http" not in re.sub(r'http-equiv="Content', "", page)
    assert page.count("data:image/png") == 3 * (
        2 * 8 + 2
    )  # each picture and its region; the strongest again, with heat
    # the inner cells of the map see 3 x 3 pixels
    assert re.search(r'<rect class="frame" x="\d" y="\d" width="3" height="3"/>', page)
    figure = Path("channels.svg").read_bytes()
    assert b"channel " in figure
    assert distill("channels", run, *given, "--figure", "channels.png") == 0
    assert Path("page.html").read_text() == page  # the same again
    assert Path("channels.png").read_bytes().startswith(b"\x89PNG")


def test_the_pooled_layer_of_an_ensemble(run, capsys):
    members = f"[{run}/checkpoints/last.ckpt]"
    assert distill("fit", "--model", "Ensemble", "--model.members", members, "--data", "Digits", "--name", "one") == 0
    capsys.readouterr()
    assert distill("channels", "logs/digits/ensemble/one", "--layer", "pooled", "--pictures", 300, "--count", 1) == 0
    shown = capsys.readouterr().out
    assert "a cell sees 8 x 8 of 8 x 8 pixels" in shown and "halves of the channels: " in shown


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--layer", "stage9"], "ConvNet has no stage9: it has 3 stages"),
        (["--layer", "poled"], "ConvNet has no layer poled; did you mean pooled?"),
        (["--layer", "0", "--class", "33"], "digits has no class 33"),
        (["--layer", "0", "--count", "0"], "both must be 1 or more"),
        (["--layer", "0", "--figure", "x.gif"], "must end in one of .svg, .png, .pdf"),
        ([], "--layer"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_is_wrong_is_said_in_one_line(run, given, words, capsys):
    before = sorted(Path().iterdir())
    assert distill("channels", run, *given) == 2
    err = capsys.readouterr().err.strip()
    assert words in err and "\n" not in err and len(err) < 200
    assert sorted(Path().iterdir()) == before
