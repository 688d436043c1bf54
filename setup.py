"""Puts the YAML files of ``configs/`` into the wheel, as ``distill_lightning/configs/``. All else: pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies the package, then the configurations; an editable install reads them where they are."""

    def run(self) -> None:
        """Builds. Called by setuptools."""
        super().run()
        if self.editable_mode:
            return
        for file in Path("configs").rglob("*.yaml"):
            target = Path(self.build_lib, "distill_lightning", file)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


setup(cmdclass={"build_py": BuildWithConfigs})
