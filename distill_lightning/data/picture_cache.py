"""The cache of decoded pictures: a file for each folder, format and state of the pictures."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from distill_lightning.data.decoding import DECODER
from distill_lightning.data.sources import MemorySource
from distill_lightning.data.stores import Store, shown
from distill_lightning.files import atomic_write, read_json, sweep

OLD_S = 24 * 3600.0
"""The age in seconds of a file that no process is still writing."""


def from_cache(cached: Path, count: int) -> MemorySource | None:
    """The pictures in a cache file; None if there is none, or if it is damaged."""
    try:
        images = torch.from_numpy(np.load(cached, allow_pickle=False))
        listed = cached.with_suffix(".bad.json")
        bad = read_json(listed) if listed.exists() else {}
        if len(images) == count and all(int(k) < count and isinstance(v, str) for k, v in bad.items()):
            return MemorySource(images, {int(k): v for k, v in bad.items()})
    except (OSError, ValueError, EOFError, TypeError):
        pass
    return None


def write_cache(cached: Path, source: MemorySource) -> None:
    """Writes pictures into a cache file, and removes that of an older state. Does nothing if it cannot be written."""
    try:
        sweep(cached.parent, "*.npy", OLD_S)
        if source.bad:
            text = json.dumps({str(k): v for k, v in source.bad.items()})
            atomic_write(cached.with_suffix(".bad.json"), lambda file: file.write(text.encode()))
        atomic_write(cached, lambda file: np.save(file, source.images.numpy()))
        for stale in cached.parent.glob(cached.name.rpartition("-")[0] + "-*"):
            if not stale.name.startswith(cached.stem):
                stale.unlink(missing_ok=True)
    except OSError:
        pass  # the cache cannot be written: the next run decodes again


def cache_file(store: Store, names: Sequence[str], form: Sequence[str | int], cache: Path) -> Path:
    """The cache file. Before the dash its name is a digest of the folder, the common folder of the pictures and their
    form; after the dash it is a digest of the names, sizes and modification times of the pictures.

    Args:
        store: contains the pictures.
        names: their names.
        form: what they are decoded to, and for which part.
        cache: the folder of the cache.
    """
    state = hashlib.sha256()
    for name in names:
        state.update(os.fsencode(name) + f" {store.state(name)}\n".encode())
    common = os.path.commonpath([f"r/{name}" for name in names]) if names else ""
    place = [shown(store.root.resolve()), shown(common), *form, DECODER]
    where = hashlib.sha256(json.dumps(place).encode()).hexdigest()[:12]
    return cache / f"{where}-{state.hexdigest()[:16]}.npy"


def default_cache() -> Path:
    """The folder for decoded pictures in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache); for a user without a
    home, as in some containers, in the folder for temporary files.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "distill_lightning"
    try:
        return Path.home() / ".cache" / "distill_lightning"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "distill_lightning"
