"""summary.json: the results of a finished run."""

import json
from pathlib import Path
from typing import Any

from distill_lightning.files import atomic_write


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes summary.json at once as a whole, since a run is finished when the file exists."""
    atomic_write(path, lambda file: file.write((json.dumps(summary, indent=2) + "\n").encode()))
