"""The report of an export: what was compared, and what was lost."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill_lightning.exporting.parity import Parity
from distill_lightning.html_tables import html_table


@dataclass(frozen=True, eq=False)
class ExportReport:
    """The report of an export.

    Args:
        file: the file.
        format: its format.
        parity: the comparison with the run.
        size_bytes: of the network's weights in memory, and of the file.
        latency_ms: of torch and of the file, by batch size.
        threads: the number of threads for the latency.
        about: lineage, digest, versions and machine, as plain data.
    """

    file: Path
    format: str
    parity: Parity
    size_bytes: dict[str, int]
    latency_ms: dict[str, dict[int, float]]
    threads: int
    about: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        accuracy = self.parity.accuracy
        return {
            "file": self.file.name,
            "format": self.format,
            "parity": asdict(self.parity),
            "accuracy_lost": accuracy["run"] - accuracy["file"] if accuracy else None,
            "size_bytes": self.size_bytes,
            "latency_ms": self.latency_ms,
            "threads": self.threads,
            **self.about,
        }

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """The rows of the table: what, the run in torch, the file."""
        accuracy, size, latency = self.parity.accuracy, self.size_bytes, self.latency_ms
        in_threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        what = f"accuracy, {self.parity.pictures} of {self.parity.part}"
        rows = [(what, f"{accuracy['run']:.4f}", f"{accuracy['file']:.4f}")] if accuracy else []
        rows.append(("size, MB", f"{size['weights'] / 1e6:.2f}", f"{size['file'] / 1e6:.2f}"))
        for batch in latency["torch"]:
            times = (f"{latency[name][batch]:.2f}" for name in ("torch", "file"))
            rows.append((f"ms, batch of {batch}, {in_threads}", *times))  # type: ignore[arg-type]
        for batch, found in self.parity.batches.items():
            words = f"largest difference of a probability, batch of {batch}"
            rows.append((words, "", f"{found['probs']:.2g}"))
        rows.append(("same class", "", f"{self.parity.same_class[max(self.parity.same_class)]:.2%}"))
        return rows

    def __repr__(self) -> str:
        return f"ExportReport({str(self.file)!r}, {self.format})"

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return html_table(["", "torch", self.format], self.rows)
