"""The state of a study at one moment. The scheduler gives it to the display."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["waiting", "running", "elsewhere", "done", "failed", "blocked", "pruned"]
"""Another process is training a run that is ``elsewhere``. A run that is ``blocked`` needs a run that has failed. A run
that is ``pruned`` was ended early, since it was worse than others."""


@dataclass(frozen=True)
class RunStatus:
    """The state of one run at one moment."""

    name: str
    entry: str
    state: State = "waiting"
    started_s: float = 0.0
    """For a running run: the time of its start in seconds, as `time.monotonic` gives it."""


@dataclass(frozen=True)
class Snapshot:
    """The states of all runs of a study at one moment."""

    runs: tuple[RunStatus, ...]
    durations_s: Mapping[str, tuple[float, ...]]
    """The training times of the runs that are done, in seconds, by entry."""
    jobs: int
    """How many runs are trained at once."""

    def in_state(self, *states: State) -> list[RunStatus]:
        """The runs that are in one of these states."""
        return [run for run in self.runs if run.state in states]

    def seconds_left(self, now_s: float) -> float | None:
        """An estimate of the time that the study still needs, in seconds; None as long as no run is done.

        A run is expected to take the mean time of its entry's runs, or of all runs if none of its entry is done.

        Args:
            now_s: the current time in seconds, as `time.monotonic` gives it.
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
