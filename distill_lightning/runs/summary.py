"""summary.json: what a finished run came to."""

import json
from pathlib import Path
from typing import Any

from distill_lightning.files import write_whole


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes it as a whole: a run is finished when it is there."""
    write_whole(path, lambda file: file.write((json.dumps(summary, indent=2) + "\n").encode()))
