"""The how-to about runs: its blocks run, one after another."""

import re
import shlex
from pathlib import Path

from helpers import distill

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "runs.md"


def test_the_blocks_run(capsys):
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    for language, text in blocks:
        if language == "python":
            exec(text, {})
            continue
        for line in text.splitlines():
            assert distill(*shlex.split(line)[1:]) == 0, line
    out = capsys.readouterr().out
    assert "teacher logs/digits/baseline/first/checkpoints/last.ckpt  Baseline, finished" in out
    assert Path("student.html").is_file() and "\nlogs/digits/" in out
