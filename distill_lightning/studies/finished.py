"""Finds finished runs on disk. Another person may have made the files, so their content may be wrong."""

import json
from pathlib import Path
from typing import Any

from distill_lightning.runs import named

LARGEST_SUMMARY_BYTES = 2**26
LONGEST_S = 1e12
"""Seconds. A longer training time in a summary is taken to be wrong."""


def read_summary(folder: Path) -> dict[str, Any]:
    """A run's summary.json; empty if there is no such file, or if it is too large or not a JSON object."""
    path = folder / "summary.json"
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_SUMMARY_BYTES:
            return {}
        summary = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def finished_runs(log_dir: Path) -> dict[str, Path]:
    """The folder of every finished run under ``log_dir``, by its identity."""
    found: dict[str, Path] = {}
    for path in sorted(log_dir.glob("*/*/[!.]*/summary.json")):
        digest = read_summary(path.parent).get("config_digest")
        if isinstance(digest, str):
            found.setdefault(named(path.parent, digest), path.parent)
    return found


def training_time_s(folder: Path) -> float:
    """The training time of a finished run in seconds; 0 if its summary has no valid time."""
    seconds = read_summary(folder).get("wall_time_s")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds < LONGEST_S:
        return 0.0
    return float(seconds)
