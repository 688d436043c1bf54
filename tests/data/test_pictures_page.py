"""The page about one's own pictures: each of its blocks runs."""

import re
import shlex
import subprocess
from pathlib import Path

from helpers import distill

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "pictures.md"


def test_every_block_of_the_page_runs(capsys):
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    for kind, code in blocks:
        if kind == "python":
            exec(code, {})
            continue
        for line in code.replace("\\\n", " ").splitlines():
            command, refused, _ = line.partition(" || ")
            if not command.startswith("distill "):
                subprocess.run(["bash", "-ec", command], check=True)
                continue
            assert distill(*shlex.split(command)[1:]) == (2 if refused else 0), command
    said = capsys.readouterr()
    assert "plants: 3 classes, pictures 3x32x32" in said.out
    assert "asked about" not in said.out and "the folder holdout/: say what it is" in said.err
    assert all(Path(name).exists() for name in ("plants.png", "augmented.png"))
    assert Path("logs/plants/baseline/plain/predictions-sky.csv").exists()
    assert Path("logs/plants/baseline/plain/predictions-0.jpg.csv").exists()
