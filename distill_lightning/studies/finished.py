"""Finds finished runs on disk."""

import json
from pathlib import Path

from distill_lightning.runs import named


def finished_runs(log_dir: Path) -> dict[str, Path]:
    """The folder of every finished run under ``log_dir``, by its identity. Files that cannot be read are left out."""
    found: dict[str, Path] = {}
    for summary in sorted(log_dir.glob("*/*/[!.]*/summary.json")):
        try:
            found.setdefault(named(summary.parent, json.loads(summary.read_text())["config_digest"]), summary.parent)
        except (ValueError, KeyError, TypeError, OSError):
            continue
    return found


def training_time_s(folder: Path) -> float:
    """How long a finished run took; 0 where its summary does not tell."""
    return float(json.loads((folder / "summary.json").read_text()).get("wall_time_s", 0.0))
