"""The names of ``import distill_lightning as dl``: complete, lazy, and documented."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import distill_lightning as dl
from distill_lightning.data.augment import Transform
from distill_lightning.data.base import ImageData
from distill_lightning.data.mixing import Mixing
from distill_lightning.methods.base import Method
from distill_lightning.recorded import Recorded
from distill_lightning.schedules import Schedule

ROOMS = ("methods", "data", "callbacks", "schedules", "schedulers", "optimizers")
KINDS = (Method, ImageData, Transform, Mixing, Schedule, Recorded)


def public_classes():
    for room in ROOMS:
        package = importlib.import_module(f"distill_lightning.{room}")
        below = pkgutil.iter_modules(package.__path__) if hasattr(package, "__path__") else []
        for module in [package, *(importlib.import_module(f"{package.__name__}.{m.name}") for m in below)]:
            for name, found in vars(module).items():
                ours = inspect.isclass(found) and found.__module__ == module.__name__ and not name.startswith("_")
                if ours and issubclass(found, KINDS):
                    yield name, found


def test_every_method_data_module_transform_schedule_and_callback_is_there():
    bases = {"Evaluated", "ClassifierTaught", "DataOptions", "Untrained", "WeightPenalty", "WithPeers"}
    missing = {name for name, found in public_classes() if name not in dl.__all__} - bases
    assert not missing
    assert all(getattr(dl, name) is found for name, found in public_classes() if name in dl.__all__)


def test_every_network_is_in_models():
    from torch import nn

    below = [
        importlib.import_module(f"distill_lightning.models.{m.name}") for m in pkgutil.iter_modules(dl.models.__path__)
    ]
    defined = {
        name
        for module in below
        for name, found in vars(module).items()
        if inspect.isclass(found) and issubclass(found, nn.Module) and found.__module__ == module.__name__
    }
    assert {name for name in defined if not name.startswith("_")} == set(dl.models.__all__)


@pytest.mark.parametrize("name", dl.__all__)
def test_every_name_is_there_and_documented(name):
    found = getattr(dl, name)
    assert name == "__version__" or inspect.getdoc(found), name


def test_the_import_loads_nothing_heavy():
    code = "import sys, distill_lightning as dl; dl.__version__; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "numpy", "torchvision", "jsonargparse", "yaml", "rich", "scipy"} & set(loaded)


def test_no_name_hides_behind_a_module_of_the_same_name():
    """Python sets a package's module as its attribute, when somebody imports the module."""
    modules = {module.name for module in pkgutil.iter_modules(dl.__path__)}
    assert {name for name in dl.__all__ if name in modules} == {
        "initializers",
        "losses",
        "masks",
        "models",
        "preprocessing",
    }
