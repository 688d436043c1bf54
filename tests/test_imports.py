"""Who may import whom: downwards only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "distill_lightning"
ANY = {"errors", "files", "discovery"}
DATA = ANY | {"data", "soft_targets"}
MAY_IMPORT = {
    "errors": set(),
    "discovery": set(),
    "files": {"errors"},
    "config_files": {"errors", "files"},
    "losses": set(),
    "masks": set(),
    "plots": set(),
    "tickets": ANY | {"masks", "tensor_files"},
    "schedules": ANY,
    "metrics": set(),
    "soft_targets": ANY,
    "runs": ANY,
    "loggers": ANY | {"runs"},
    "models": ANY,
    "checkpoints": ANY | {"models", "specs", "tensor_files"},
    "specs": ANY,
    "tensor_files": ANY,
    "data": ANY,
    "methods": DATA | {"losses", "metrics", "schedules", "models", "checkpoints", "members"},
    "callbacks": DATA
    | {"tensor_files", "losses", "models", "checkpoints", "members", "runs", "masks", "tickets", "plots"},
    "members": DATA | {"checkpoints"},
    "report": ANY | {"runs", "plots"},
    "studies": ANY | {"runs", "config_files"},
    "bench": DATA | {"methods"},
}


def imports(path: Path) -> set[str]:
    """Full names of what a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = [f for f in PACKAGE.rglob("*.py") if f.relative_to(PACKAGE).parts[0] not in ("__init__.py", "__main__.py")]


@pytest.mark.parametrize("path", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = imports(path)
    ours = {name.split(".")[1] for name in names if name.startswith("distill_lightning.")}
    if room != "cli":
        assert ours <= MAY_IMPORT[room] | {room}
    assert not any(name.startswith("pytorch_lightning") for name in names)


@pytest.mark.parametrize("name", ["losses", "soft_targets"])
def test_the_lowest_rooms_need_torch_and_numpy_alone(name):
    outside = {n.split(".")[0] for n in imports(PACKAGE / f"{name}.py")}
    assert outside & {"lightning", "torchvision", "jsonargparse", "rich", "sklearn"} == set()


def test_no_method_imports_its_sibling():
    for path in (PACKAGE / "methods").glob("[!_]*.py"):
        siblings = {n for n in imports(path) if n.startswith("distill_lightning.methods.")}
        assert {n.split(".")[2] for n in siblings} <= {"base"}, path


def modules_of(room: str) -> dict[str, set[str]]:
    """What each module of a room imports of its own room, by the modules' names."""
    prefix = f"distill_lightning.{room}."
    names = {path.stem for path in (PACKAGE / room).glob("*.py")}
    imported = {name: imports(PACKAGE / room / f"{name}.py") for name in names}
    within = {name: {n.removeprefix(prefix).split(".")[0] for n in given} for name, given in imported.items()}
    return {name: given & names - {"__init__"} for name, given in within.items()}


@pytest.mark.parametrize("room", ["report", "studies"])
def test_no_circles_within_a_room(room):
    left = modules_of(room)
    while left:
        free = {name for name, needs in left.items() if not needs & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in free}


def test_a_plan_does_not_know_who_carries_it_out():
    above = {"engine", "scheduler", "display", "snapshot"}
    within = modules_of("studies")
    assert not within["plan"] & above and not within["reading"] & (above | {"plan"})
    assert not within["display"] & {"scheduler", "engine", "plan"}


WITHOUT_TORCH = ["cli.report", "cli.study", "report.page", "report.table_builder", "report.figure_builder", "studies"]
WITHOUT_TORCH += ["cli.configs", "config_files"]


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_reads_runs_does_not_wait_for_torch(module):
    code = f"import sys, distill_lightning.{module}; print(sorted({{'torch', 'lightning'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
