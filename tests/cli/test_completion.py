"""The script for bash, sourced in a real shell; and the page that explains the command."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import distill

PAGE = Path(__file__).parent.parent.parent / "docs" / "how_to" / "command.md"
PRESS_TAB = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_distill 2> /dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "distill.bash"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert distill("completion", "bash") == 0
    path.write_text(out.getvalue())
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["fi"], ["fit"]),
        (["fit", "--model.temp"], ["--model.temperature", "--model.temperature_range"]),
        (["fit", "--trainer.max_e"], ["--trainer.max_epochs"]),
        (["fit", "--data.aug"], ["--data.augment"]),
        (["fit", "--trainer.callbacks.rew"], ["--trainer.callbacks.rewind_to"]),
        (["fit", "--model", "K"], ["KD", "KDCL"]),
        (["fit", "--model.network", "LeN"], ["LeNet300100"]),
        (["fit", "--model.compile", "t"], ["true"]),
        (["fit", "--config", "digits/dl"], ["digits/dlb"]),
        (["fit", "--config", "my"], ["my.yaml"]),
        (["configs", "digits/dl"], ["digits/dlb"]),
        (["report", "my"], ["my.yaml"]),
        (["completion", "z"], ["zsh"]),
    ],
    ids=lambda given: " ".join(given),
)
def test_tab_completes(words, completed, script):
    Path("my.yaml").write_text("")
    shell = ["bash", "--norc", "-c", PRESS_TAB, "bash", str(script), "distill", *words]
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed


def test_other_shells_and_no_shell(capsys):
    assert distill("completion", "zsh") == 0
    assert capsys.readouterr().out.startswith("#compdef distill")
    assert distill("completion", "fish") == 2


def test_every_block_of_the_page_runs(tmp_path, monkeypatch, capsys):
    """The commands in this process, for speed; a redirection is left to the shell, and so left out here."""
    text = PAGE.read_text().replace("\\\n", " ")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 12
    for line in lines:
        words = line.partition(" > ")[0].split()
        assert words[0] == "distill"
        assert distill(*words[1:]) == 0, line
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
        Path(f"block{number}.py").write_text(block)
        monkeypatch.setattr(sys, "argv", [f"block{number}.py"])
        exec(compile(block, f"block{number}.py", "exec"), {"__name__": f"block{number}"})
    assert "Mixup.alpha is 0: it must be above 0" in capsys.readouterr().out
    for given, answer in re.findall(r"\$ (distill .*)\n(distill: .*)\n", text):
        import shlex

        assert distill(*shlex.split(given)[1:]) == 2
        assert capsys.readouterr().err.strip() == answer
