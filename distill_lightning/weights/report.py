"""What happened when weights were put into a network."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SHOWN = 3
"""The number of names that a line lists of each kind."""


@dataclass(frozen=True)
class Report:
    """What happened to each tensor of a network and of a file.

    Each tensor of the network is either in ``matched``, ``adapted`` or ``new``. Each tensor of the file that was not
    used is in ``left_out``.

    Args:
        source: the file.
        entry: the name of the state dict in the file; "" for the file itself.
        prefix: the prefix of the names in the file that was removed.
        added: the prefix that was added, for a network that holds the file's network as a part.
        matched: names of tensors that were copied.
        adapted: names of tensors that were copied in another shape, each with how: "conv1.weight 3 to 1 channels".
        new: names of tensors that keep the network's own values, because the file has none for them.
        head: the numbers of classes of the network and of the file, if a new head was made.
        left_out: names of tensors of the file that the network does not have, or has in another shape.
        share: the share of the network's parameters, without the head, that the file has given; in [0, 1].
        notes: further things to say.
    """

    source: str
    entry: str
    prefix: str
    added: str
    matched: tuple[str, ...]
    adapted: tuple[str, ...]
    new: tuple[str, ...]
    head: tuple[int, int] | None
    left_out: tuple[str, ...]
    share: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a file."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def line(self) -> str:
        """The report in one line: counts, and the first names of each kind."""
        count = len(self.matched) + len(self.adapted)
        total = count + len(self.new)
        where = f" ({self.entry})" if self.entry else ""
        of = "of the parameters without the head" if self.head else "of the parameters"
        parts = [f"weights from {self.source}{where}: {count} of {total} tensors, {self.share:.1%} {of}"]
        if self.prefix:
            parts.append(f"without the prefix {self.prefix}")
        if self.added:
            parts.append(f"with the prefix {self.added}")
        if self.adapted:
            parts.append(f"adapted: {_some(self.adapted)}")
        if self.new:
            head = f" (the head has {self.head[0]} classes, in the file {self.head[1]})" if self.head else ""
            parts.append(f"new: {_some(self.new)}{head}")
        if self.left_out:
            parts.append(f"left out: {_some(self.left_out)}")
        return "; ".join([*parts, *self.notes])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
