"""How far a study is: the values that the scheduler hands to the display."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["waiting", "running", "elsewhere", "done", "failed", "blocked"]
"""A run that is ``elsewhere`` is being trained by another process. One that is ``blocked`` needs a run that failed."""


@dataclass(frozen=True)
class RunStatus:
    """One run at one moment."""

    name: str
    entry: str
    state: State = "waiting"
    started_s: float = 0.0
    """What `time.monotonic` gave when it started, for a run that is running."""


@dataclass(frozen=True)
class Snapshot:
    """All runs of a study at one moment."""

    runs: tuple[RunStatus, ...]
    durations_s: Mapping[str, tuple[float, ...]]
    """How long the runs that are done took, by entry."""
    jobs: int
    """How many runs are trained at once."""

    def in_state(self, *states: State) -> list[RunStatus]:
        return [run for run in self.runs if run.state in states]

    def seconds_left(self, now_s: float) -> float | None:
        """An estimate from the runs that are done, those of the same entry first; None while none is done.

        Args:
            now_s: `time.monotonic` of now.
        """
        known = [seconds for durations in self.durations_s.values() for seconds in durations]
        if not known:
            return None
        mean = sum(known) / len(known)
        expected = {entry: sum(durations) / len(durations) for entry, durations in self.durations_s.items()}
        left = sum(expected.get(run.entry, mean) for run in self.in_state("waiting", "elsewhere"))
        left += sum(
            max(0.0, expected.get(run.entry, mean) - (now_s - run.started_s)) for run in self.in_state("running")
        )
        return left / self.jobs
