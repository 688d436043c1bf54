"""Every configuration in ``configs/`` resolves, to what it says and what it builds on."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import CONFIGS

from distill_lightning.cli.app import resolve
from distill_lightning.config_files import shipped_names
from distill_lightning.runs.config import flatten

OTHERS = ("callbacks/", "searches/", "studies/")
NAMES = [name for name in shipped_names() if not name.startswith(OTHERS)]


def stated(name: str) -> dict[str, Any]:
    """What a file says, by full path: over what its base says. A network is said as a whole."""
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    base = content.pop("base", None)
    below = {} if base is None else stated(f"{name.partition('/')[0]}/{Path(base).stem}")
    own = flatten(content)
    network = "model.init_args.network"
    if any(key.startswith(network) for key in own):
        below = {key: value for key, value in below.items() if not key.startswith(network)}
    return below | own


def agrees(said: Any, found: Any) -> bool:
    """Whether a resolved value is the one that was said: a class may be said by its short name, or without options."""
    if isinstance(said, str) and isinstance(found, dict):
        found = found["class_path"]
    if isinstance(said, str) and isinstance(found, str):
        return found == said or found.endswith(f".{said}")
    return said == found or (isinstance(said, str) and float(said) == found)


def at(options: Any, path: str) -> Any:
    for key in path.split("."):
        options = options[int(key) if isinstance(options, list) else key]
    return options


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_is_what_it_says(name, mnist, cifar10, cifar100, pictures):
    roots = {"mnist": mnist, "cifar10": cifar10, "cifar100": cifar100, "folder": pictures}
    folder, _, stem = name.partition("/")
    root = roots.get(stem.partition("_")[0] if folder == "recipes" else folder)
    if "timm." in (CONFIGS / f"{name}.yaml").read_text():
        pytest.importorskip("timm")
    options = resolve(["fit", "--config", name, *(["--data.root", str(root)] if root else [])]).config.options
    said = {key: value for key, value in stated(name).items() if key != "data.init_args.root"}
    assert not [key for key, value in said.items() if not agrees(value, at(options, key))]
    assert "base" not in options


ADDED = {
    "callbacks/consistency": "Consistency",
    "callbacks/gradient_flow": "GradientFlow",
    "callbacks/lottery": "Lottery",
}


@pytest.mark.parametrize("name", [*ADDED, "callbacks/ticket"])
def test_a_callback_adds_to_those_of_another_configuration(name):
    options = resolve(["fit", "--config", "digits/kd", "--config", name]).config.options
    given = [re.sub(r".*\.", "", callback["class_path"]) for callback in options["trainer"]["callbacks"]]
    assert given == ["SoftTargets", ADDED.get(name, "Lottery")]
