"""The page about exported files: its preprocessing in numpy alone, and each of its blocks."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import distill
from PIL import Image

from distill_lightning.pillow_decoding import of_picture

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
PAGE = Path(__file__).parent.parent.parent / "docs" / "how_to" / "ship.md"
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
ONLY_NUMPY = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "lightning", "distill_lightning", "onnx"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
"""


def test_every_block_of_the_page_runs(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parent.parent.parent))
    said = ""
    for kind, code in BLOCKS:
        commands = [line.split()[1:] for line in code.splitlines() if line.startswith("distill ")]
        rest = "\n".join(line for line in code.splitlines() if not line.startswith("distill "))
        rest = rest.replace("python -c", f'"{sys.executable}" -c')
        program = ["bash", "-ec", rest] if kind == "bash" else [sys.executable, "-c", rest]
        if "import onnxruntime" in code:
            program = [sys.executable, "-c", ONLY_NUMPY + code]
        done = subprocess.run(program, capture_output=True, text=True)
        assert done.returncode == 0, (code, done.stderr)
        said = done.stdout
        for command in commands:  # in this process, which has imported torch already
            assert distill(*command) == 0
    assert len(BLOCKS) == 4
    row = Path("predictions-digits.csv").read_text().splitlines()[1].split(",")
    name, prob = said.split()
    assert row[2] == name
    assert float(max(row[3:], key=float)) == pytest.approx(float(prob), abs=0.02)


@pytest.mark.parametrize("shape", [(40, 48), (48, 40), (7, 300), (19, 21), (8, 8)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_preprocessing_of_the_page_is_that_of_pillow(shape, channels):
    names: dict = {}
    code = next(code for _, code in BLOCKS if "def prepared" in code)
    exec(code.partition("session =")[0], names)
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = names["prepared"](pixels, channels, 19).astype(int)
    expected = of_picture(Image.fromarray(pixels), channels, 19)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.05
