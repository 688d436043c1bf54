"""The wheel, installed into an environment of its own and used from an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import setuptools

from distill_lightning.config_files import shipped_names

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
"""Without PYTHONPATH, through which the sources would be found."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, since a build leaves files beside the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("distill_lightning", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # with the setuptools of this environment where it can, otherwise with one that pip fetches
    here = ["--no-build-isolation"] if int(setuptools.__version__.split(".")[0]) >= 77 else []
    folder = tmp_path_factory.mktemp("dist")
    call = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *here, "-w", folder, source]
    subprocess.run(call, check=True, cwd=folder, env=ENVIRONMENT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def bin_folder(wheel, tmp_path_factory) -> Path:
    """Of an environment that has the wheel, and sees the dependencies of this one, but not what is editable in it."""
    environment = tmp_path_factory.mktemp("environment").resolve()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    call = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(call, check=True, cwd=environment, env=ENVIRONMENT)
    (site,) = environment.glob("lib/python*/site-packages")
    # a folder that a .pth file names is searched last, and .pth files in it are not read
    seen = dict.fromkeys(sysconfig.get_paths()[kind] for kind in ("purelib", "platlib"))
    (site / "dependencies.pth").write_text("\n".join(seen) + "\n")
    return python.parent


@pytest.fixture
def run(bin_folder, tmp_path):
    """Runs a program of that environment in an empty folder; gives what it printed."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def call(name: str, *args: str) -> str:
        env = ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([bin_folder / name, *args], cwd=empty, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_what_is_in_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    package = ROOT / "distill_lightning"
    modules = {file.relative_to(ROOT).as_posix() for file in package.rglob("*.py")}
    configs = {f"distill_lightning/configs/{name}.yaml" for name in shipped_names()}
    inside = {name for name in names if ".dist-info/" not in name}
    templates = {file.relative_to(ROOT).as_posix() for file in (package / "report" / "templates").iterdir()}
    assert inside == modules | configs | templates | {"distill_lightning/py.typed", "distill_lightning/__init__.pyi"}
    assert len(configs) > 80


def test_the_package_is_the_installed_one(run, bin_folder):
    code = "import distill_lightning, distill_lightning.config_files as c; print(distill_lightning.__file__, c.FOLDER)"
    for place in run("python", "-c", code).split():
        assert Path(place).is_relative_to(bin_folder.parent / "lib")


def test_the_main_job_from_an_empty_folder(run, tmp_path):
    listed = run("distill", "configs")
    assert [line.split()[0] for line in listed.splitlines() if line] == shipped_names()
    assert "base: baseline.yaml" in run("distill", "configs", "digits/dlb")
    out = run("distill", "fit", "--config", "digits/dlb", "--trainer.max_epochs", "1")
    assert out.startswith("run: logs/digits/dlb/convnet-seed0\n")
    checkpoint = "logs/digits/dlb/convnet-seed0/checkpoints/last.ckpt"
    tested = run("distill", "test", "--ckpt_path", checkpoint)
    assert re.search(r"accuracy\W+0\.\d+", tested)
    assert " 7 runs, 0 done" in run("distill", "study", "quick", "--dry_run")
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["logs"]
