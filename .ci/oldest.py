"""Prints the lowest version of each dependency that pyproject.toml allows, as a pip constraint.

python .ci/oldest.py > constraints.txt && pip install -e . pytest pytest-xdist selenium -c constraints.txt
"""

import re
import tomllib
from pathlib import Path

TOOLS = ("pytest", "pytest-xdist", "selenium")
"""What the tests themselves run on; linters and type checkers are not a matter of the oldest environment."""


def lowest(requirement: str) -> str:
    """A requirement as a constraint on its lowest version: ``name[extra]>=1.2,<2`` as ``name==1.2``.

    Raises:
        ValueError: it has no lowest version.
    """
    found = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?\s*>=\s*([\w.]+)(?:\s*,.*)?", requirement)
    if found is None:
        raise ValueError(f"{requirement} has no lowest version: write it as name>=version")
    return f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tools = [one for one in project["optional-dependencies"]["test"] if re.split(r"[\[><=]", one)[0] in TOOLS]
    print("\n".join(lowest(requirement) for requirement in project["dependencies"] + tools))
