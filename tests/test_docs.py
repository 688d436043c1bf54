"""The documentation: its blocks run, and its reference has every public name.

The bash, python and yaml blocks of a page run one after another, in one folder. A block with a title,
``python title="mine.py"``, is written to this file. A YAML block without a title must be a study, or options that
``distill fit`` takes. A comment before a block, ``<!-- test: skip (reason) -->``, leaves it out.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from helpers import distill

import distill_lightning as dl

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN_BY_OTHERS = {
    "docs/how_to/ship.md": "tests/exporting/test_ship_page.py",
    "docs/how_to/pictures.md": "tests/data/test_pictures_page.py",
}
"""Pages whose blocks run in another test, which also checks what they make."""
BLOCK = re.compile(
    r"^(?:<!-- test: (?P<mark>.*?) -->\n+)?"
    r"```(?P<kind>bash|python|yaml)(?: title=\"(?P<title>[\w./]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
MOST_SKIPPED = 6
"""On all pages but those of results: a table's command takes its time."""
FOR_THE_SHELL = re.compile(r"[|&;<>$`]|--trainer\.devices")
"""What a line contains that this process cannot run: shell syntax, or processes that start the same program again."""


@dataclass(frozen=True)
class Block:
    kind: str
    title: str | None
    text: str
    reason: str | None
    """Why it is skipped."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    found = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        reason = None
        if match["mark"] is not None:
            skip = re.fullmatch(r"skip \((.{10,})\)", match["mark"])
            assert skip, f"{page}: {match['mark']}: expected skip (reason)"
            reason = skip[1]
        found.append(Block(match["kind"], match["title"], match["text"], reason))
    return found


def run_bash(text: str) -> None:
    """Plain ``distill`` lines in this process, which has imported torch already; all else in a shell."""
    rest: list[str] = []

    def shell() -> None:
        if any(line.strip() for line in rest):
            done = subprocess.run(["bash", "-e"], input="\n".join(rest), capture_output=True, text=True)
            assert done.returncode == 0, ("\n".join(rest), done.stdout, done.stderr)
        rest.clear()

    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("distill ") and not FOR_THE_SHELL.search(line.partition(" #")[0]):
            shell()
            said = io.StringIO()
            with redirect_stdout(said):
                status = distill(*shlex.split(line, comments=True)[1:])
            assert status == 0, (line, said.getvalue()[-2000:])
        else:
            rest.append(line)
    shell()


def check_yaml(text: str) -> None:
    """Checks options without training."""
    content = yaml.safe_load(text)
    Path("block.yaml").write_text(text)
    if "runs" in content:
        run_bash("distill study block.yaml --dry_run")
    else:
        run_bash("distill fit --config digits/baseline --config block.yaml --print_config")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder with ``distill`` and ``python`` before all others in PATH, home in the test's folder."""
    folder = tmp_path / ".programs"
    folder.mkdir()
    for name, arguments in (("python", ""), ("distill", " -m distill_lightning")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("page", [p for p in PAGES if name_of(p) not in RUN_BY_OTHERS and blocks(p)], ids=name_of)
def test_the_blocks_of_a_page_run(page, programs, capsys):
    names: dict = {"__name__": "__main__"}
    for block in blocks(page):
        if block.reason:
            continue
        if block.title:
            Path(block.title).write_text(block.text)
        if block.kind == "bash":
            run_bash(block.text)
        elif block.kind == "python" and not block.title:
            exec(compile(block.text, name_of(page), "exec"), names)
        elif block.kind == "yaml" and not block.title:
            check_yaml(block.text)


def test_few_blocks_are_skipped():
    skipped = [
        (name_of(page), block.reason)
        for page in PAGES
        for block in blocks(page)
        if block.reason and page.parent.name != "results"
    ]
    assert len(skipped) <= MOST_SKIPPED, skipped


def test_the_commands_of_results_are_of_studies_that_exist():
    """What a results page skips because it takes long must be a command that can begin; another test plans all."""
    for page in (ROOT / "docs" / "results").glob("*.md"):
        for block in blocks(page):
            for study in re.findall(r"^distill study (\S+)", block.text, re.MULTILINE) if block.reason else []:
                assert (ROOT / "configs" / "studies" / f"{study}.yaml").is_file(), (name_of(page), study)


def test_pages_that_other_tests_run():
    for page, test in RUN_BY_OTHERS.items():
        assert (ROOT / page).is_file() and Path(page).name in (ROOT / test).read_text()


def test_blocks_have_known_forms():
    """Each fence is one that is run, or plain text; a typing error in a title or a comment would hide it."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        opened = [line for line in re.findall(r"^```.*$", text, re.MULTILINE) if line not in ("```", "```text")]
        assert len(opened) == len(blocks(page)), (name_of(page), opened)
        assert text.count("<!-- test") == sum(block.reason is not None for block in blocks(page)), name_of(page)


def test_the_reference_has_every_public_name():
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    found = re.findall(r"^::: distill_lightning\.(\w+)$", pages, re.MULTILINE)
    assert sorted(found) == sorted(set(dl.__all__) - {"__version__"})


def test_every_study_is_listed():
    page = (ROOT / "docs" / "how_to" / "studies.md").read_text()
    studies = {path.stem for path in (ROOT / "configs" / "studies").glob("*.yaml")}
    assert {name for name in studies if f"`{name}`" not in page} == set()


def test_every_method_is_explained():
    page = (ROOT / "docs" / "explanations" / "methods.md").read_text()
    explained = set(re.findall(r"^::: (distill_lightning\.methods\.\w+)$", page, re.MULTILINE))
    public = [getattr(dl, name) for name in dl.__all__]
    methods = {one for one in public if isinstance(one, type) and issubclass(one, dl.Method)}
    methods -= {dl.Method, dl.Taught, dl.FeatureTaught, dl.Branched}
    assert explained == {method.__module__ for method in methods}


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert page.relative_to(ROOT / "docs").as_posix() in navigation
