"""Reads state dicts from files: checkpoints of this program, Lightning, timm and torchvision, and plain weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from distill_lightning.distributed import say
from distill_lightning.errors import InputError
from distill_lightning.tensor_files import read_tensors

ENTRIES = ("", "state_dict", "model", "model_state_dict", "net", "network", "module", "model_ema", "state_dict_ema")
"""The names under which files hold a state dict, in the order of preference; "" is the file itself. A state dict under
another name is found too, and comes last."""
DEEPEST = 3
"""The number of levels that are searched for state dicts."""


@dataclass(frozen=True)
class Source:
    """The state dicts in a file.

    Args:
        name: the file, for reports and errors.
        entries: each state dict, by the name under which it was found. The preferred one comes first.
    """

    name: str
    entries: Mapping[str, Mapping[str, Tensor]]


def read_source(path: str | Path) -> Source:
    """Reads all state dicts in a file.

    Args:
        path: a file of safetensors or ``torch.save``, or the folder of a run, whose last checkpoint is taken.

    Raises:
        InputError: see ``checkpoint_of`` and ``read_tensors``; or the file holds no state dict.
    """
    path = checkpoint_of(path)
    content = read_tensors(path, "file of weights", foreign=True)
    found = dict(_state_dicts(content, "", DEEPEST))
    if not found:
        what = f"a {type(content).__name__}" if not isinstance(content, dict) else _keys(content)
        raise InputError(f"{path} holds no weights, but {what}: give a checkpoint or a saved state dict")
    order = sorted(found, key=lambda name: ENTRIES.index(name) if name in ENTRIES else len(ENTRIES))
    return Source(str(path), {name: found[name] for name in order})


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint that a path means: the file itself, or the last checkpoint of a run, if the path is its folder.

    It prints which checkpoint it takes.

    Raises:
        InputError: the path is a folder without ``checkpoints/last.ckpt``.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for last in (path / "checkpoints" / "last.ckpt", path / "last.ckpt"):
        if last.is_file():
            say(f"{path} is a folder: its {last.relative_to(path)} is taken")
            return last
    raise InputError(f"{path} is a folder without checkpoints/last.ckpt: give the folder of a run, or a file")


def _state_dicts(content: Any, name: str, deepest: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, dict):
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    others = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, dict)}
    if tensors and len(tensors) > len(others):
        yield name, tensors
    elif deepest:
        for key, value in others.items():
            yield from _state_dicts(value, f"{name}.{key}" if name else key, deepest - 1)


def _keys(content: Mapping[Any, Any]) -> str:
    return f"the entries {', '.join(str(key)[:20] for key in [*content][:4])}" if content else "nothing"
