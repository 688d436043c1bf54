"""What a search has found: the table of its trials, the best configuration, and which options mattered."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distill_lightning.plots import Line, Plot
from distill_lightning.report.tables import Table
from distill_lightning.runs import RunConfig
from distill_lightning.runs.config import dump
from distill_lightning.search.reading import Search
from distill_lightning.search.trials import Trial

OF_RUN = ("seed_everything", "name", "log_dir")
"""Options of a run that are not part of a configuration."""


@dataclass(frozen=True)
class Outcome:
    """The result of a search.

    Args:
        search: the search.
        trials: the trials that have ended, by number.
        importance: the share of each option in the variance of the results; empty if it is not known.
    """

    search: Search
    trials: list[Trial]
    importance: Mapping[str, float]

    @property
    def ranked(self) -> list[Trial]:
        """The trials, the best first; those without a result last."""
        sign = 1 if self.search.lowest_is_best else -1
        return sorted(self.trials, key=lambda one: (one.value is None, sign * (one.value or 0.0), one.number))

    @property
    def best(self) -> Trial | None:
        """The best trial; None if none has a result."""
        return next((trial for trial in self.ranked if trial.value is not None), None)

    def line(self) -> str:
        """How far the search is, and the best value so far, in one line."""
        count = f"{len(self.trials)} of {self.search.trials} trials"
        if self.best is None:
            return f"{count}, none has a result"
        values = ", ".join(f"{name} {_cell(value)}" for name, value in self.best.values.items())
        return f"{count}, best {self.search.metric} {self.best.value:.4f} with {values}"

    def table(self) -> Table:
        """All trials, the best first."""
        options = list(self.search.space)
        rows = [
            [str(one.number), *(_cell(one.values.get(name)) for name in options), _result(one)] for one in self.ranked
        ]
        seeds = f", mean over {self.search.seeds} seeds" if self.search.seeds > 1 else ""
        note = f"{self.search.metric} at the end of training{seeds}. {self.looks()}"
        return Table(self.search.path.stem.replace("_", " "), ["trial", *options, self.search.metric], rows, note)

    def looks(self) -> str:
        """How often the search has looked at the validation split, and what follows."""
        done = sum(trial.value is not None for trial in self.trials)
        pruned = sum(trial.state == "pruned" for trial in self.trials)
        looks = f"{done} trials" + (f" and {pruned} pruned ones" if pruned else "")
        return (
            f"{looks} looked at the same validation pictures, so the best value is better than what it promises. "
            "Judge the best options by other seeds and by the test pictures, once."
        )

    def plot(self) -> Plot | None:
        """The importance of the options as bars; None if it is not known."""
        if not self.importance:
            return None
        shares = list(self.importance.values())
        line = Line("", list(range(len(shares))), shares)
        title = f"Share in the variance of {self.search.metric}"
        return Plot(title, [line], "option", "share", bars=list(self.importance))

    def best_config(self, run: Path) -> str:
        """The configuration of the best trial as YAML, without seed and name.

        Args:
            run: the folder of a run of that trial.
        """
        options = {key: value for key, value in RunConfig.read(run).options.items() if key not in OF_RUN}
        assert self.best is not None
        found = f"{self.search.metric} {self.best.value:.4f} in trial {self.best.number} of {len(self.trials)}"
        return f"# {self.search.path.name}: {found}\n" + dump(options)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)


def _result(trial: Trial) -> str:
    return trial.state if trial.value is None else f"{trial.value:.4f}"
