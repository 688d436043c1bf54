"""Makes the page docs/results/gpu.md from what check.py has found.

    python tests/gpu/page.py [OUT.json]

The file is kept beside the page, as gpu.json. Without a file, the page is made from the one that is kept; as long as
there is none, it says that nothing was seen on a GPU.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "gpu.md"
KEPT = PAGE.with_suffix(".json")
QUESTIONS = {
    "environment": "which card, which versions",
    "forms": "does a run learn in float32, TF32, bf16, fp16 with a scaler, channels last, compiled, with CUDA graphs",
    "resume": "is a run that was killed and resumed equal to one that was not, bit by bit",
    "speed": "a step beside the bare loop, and its peak memory",
    "processes": "NCCL with one process; two processes on one card with gloo: the loss of one process alone",
    "members": "ten ResNet-20 side by side, and in ten processes that share the card, in times of one run",
    "soft_targets": "a table of soft targets beside a teacher that is asked in each step: the same loss; seconds",
    "jpeg": "JPEGs decoded by the card (nvJPEG) beside one thread of the CPU",
    "ship": "is a run of the card opened, tested and exported on the CPU",
    "suite": "do the tests of losses, networks and metrics pass beside the card",
    "methods": "the loss of every method, teacher and mixture beside that of the CPU",
}
"""What each part of check.py answers."""
HEAD = """# On a GPU

`tests/gpu/check.sh` runs the checks that need a GPU. It takes at most nine minutes, and needs no internet. Each part
has the minutes that it may need, and is left out if fewer are left; the parts at the top come first.

<!-- test: skip (needs a GPU) -->
```bash
tests/gpu/check.sh out.json && python tests/gpu/page.py out.json
```

The second command makes this page. On a CPU, `python tests/gpu/check.py out.json --device cpu` rehearses the parts.

"""


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of the page.

    Args:
        found: what check.py has found, by the names of its parts; empty if it was not run.
    """
    if not found:
        said = "**It was only rehearsed on a CPU: nothing of this program was seen on a GPU yet.**"
    else:
        known = found.get("environment", {})
        said = f"{known.get('card', 'A CPU')}, torch {known.get('torch')}, lightning {known.get('lightning')}."
    rows = [f"| `{name}` | {question} | {_verdict(found.get(name))} |" for name, question in QUESTIONS.items()]
    numbers = [
        f"\n## {name}\n\n```json\n{json.dumps(found[name], indent=2)}\n```" for name in QUESTIONS if name in found
    ]
    return HEAD + "\n".join([said, "", "| part | question | |", "|---|---|---|", *rows, *numbers]) + "\n"


def _verdict(found: Mapping[str, Any] | None) -> str:
    if found is None or "left_out" in found:
        return "not run"
    return "right" if found.get("ok") else "**wrong or failed**"


if __name__ == "__main__":
    if sys.argv[1:]:
        shutil.copyfile(sys.argv[1], KEPT)
    PAGE.write_text(page(json.loads(KEPT.read_text()) if KEPT.exists() else {}))
