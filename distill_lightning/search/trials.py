"""The trials of a search: Optuna chooses their values, and keeps them and their results in a journal."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_lightning.errors import InputError
from distill_lightning.search.reading import Between, Search
from distill_lightning.studies import Options

if TYPE_CHECKING:
    import optuna

FIRST = 5
"""The number of trials that are trained to their end before one is pruned."""
UNTIL = 1 / 3
"""The share of the steps that each trial is trained for."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A trial with its result, if it has one.

    Args:
        number: its number, from 0.
        values: the values of the options that are searched.
        value: the metric; None if it failed or was pruned.
        state: "done", "pruned", "failed" or "open".
    """

    number: int
    values: Options
    value: float | None
    state: str


class Trials:
    """The trials of a search so far.

    Args:
        search: the search.
        folder: the folder of its journal.
        seed: the seed of the choices.

    Raises:
        InputError: Optuna is not installed, or the journal cannot be read.
    """

    def __init__(self, search: Search, folder: Path, seed: int = 0) -> None:
        self.optuna = _optuna()
        self.search, self.seed = search, seed
        folder.mkdir(parents=True, exist_ok=True)
        journal = folder / "trials.journal"
        _repair(journal)
        storage = self.optuna.storages.journal
        try:
            self.storage = self.optuna.storages.JournalStorage(storage.JournalFileBackend(str(journal)))
            self.study = self._study(0)
        except Exception as error:  # whatever Optuna's replay of a wrong line comes to
            raise InputError(f"{journal} is damaged: delete it, and finished runs are found again") from error
        self._asked: dict[int, optuna.Trial] = {}
        for trial in self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.RUNNING,)):
            # a search was interrupted: the runs of the trial go on
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            self.study.enqueue_trial(trial.params)

    def ask(self, count: int) -> list[Trial]:
        """Chooses the values of the next trials.

        Args:
            count: how many at most; fewer are given at the end of the search.
        """
        ended = len(self.ended())
        self.study = self._study(ended)
        asked = []
        for _ in range(min(count, self.search.trials - ended)):
            trial = self.study.ask()
            values = {name: _suggested(trial, name, one) for name, one in self.search.space.items()}
            self._asked[trial.number] = trial
            asked.append(Trial(trial.number, values, None, "open"))
        return asked

    def report(self, trial: Trial, step: int, value: float) -> bool:
        """Notes a value before the end, and says whether the trial should be pruned."""
        asked, states = self._asked[trial.number], self.optuna.trial.TrialState
        asked.report(value, step)
        done = self.study.get_trials(deepcopy=False, states=(states.COMPLETE,))
        whole = max((one.last_step or 0 for one in done), default=0)
        return step >= UNTIL * whole and asked.should_prune()

    def tell(self, trial: Trial, value: float | None, pruned: bool = False) -> None:
        """Notes the result of a trial; None if it failed, or was pruned."""
        states = self.optuna.trial.TrialState
        asked = self._asked.pop(trial.number)
        if value is not None:
            self.study.tell(asked, value)
            return
        asked.set_user_attr("ended", True)  # else the trial was interrupted, and is made again
        self.study.tell(asked, state=states.PRUNED if pruned else states.FAIL)

    def ended(self) -> list[Trial]:
        """The trials that have a result, by number."""
        states = self.optuna.trial.TrialState
        names = {states.COMPLETE: "done", states.PRUNED: "pruned", states.FAIL: "failed"}
        ended = [
            one
            for one in self.study.get_trials(deepcopy=False)
            if one.state is states.COMPLETE or (one.state in names and one.user_attrs.get("ended"))
        ]
        # numbered without those that were interrupted
        return [
            Trial(number, self._values(one.params), _result(one), names[one.state]) for number, one in enumerate(ended)
        ]

    def importance(self) -> dict[str, float]:
        """The share of each option in the variance of the results, the largest first (fANOVA, Hutter et al. 2014);
        empty if there are too few results, or all are equal.
        """
        done = [trial.value for trial in self.ended() if trial.state == "done"]
        if len(set(done)) < 2 or len(done) < FIRST or len(self.search.space) < 2:
            return {}
        evaluator = self.optuna.importance.FanovaImportanceEvaluator(seed=self.seed)
        return dict(self.optuna.importance.get_param_importances(self.study, evaluator=evaluator))

    def _study(self, ended: int) -> "optuna.Study":
        """The study, with a sampler that depends on the seed and on how many trials have ended, not on restarts."""
        search, samplers, pruners = self.search, self.optuna.samplers, self.optuna.pruners
        study: optuna.Study = self.optuna.create_study(
            study_name=f"{search.digest}-{self.seed}",
            storage=self.storage,
            load_if_exists=True,
            direction="minimize" if search.lowest_is_best else "maximize",
            sampler=samplers.TPESampler(seed=1000 * self.seed + ended, constant_liar=True),
            pruner=pruners.MedianPruner(FIRST) if search.prune else pruners.NopPruner(),
        )
        return study

    def _values(self, params: dict[str, Any]) -> Options:
        return {
            name: params[name] if isinstance(one, Between) else one[params[name]]
            for name, one in self.search.space.items()
            if name in params
        }


def _suggested(trial: "optuna.Trial", name: str, one: Between | Sequence[Any]) -> Any:
    if not isinstance(one, Between):  # by place, as a value may be of any type
        return one[trial.suggest_categorical(name, range(len(one)))]
    if one.whole:
        return trial.suggest_int(name, int(one.low), int(one.high), log=one.log)
    return trial.suggest_float(name, one.low, one.high, log=one.log)


def _result(trial: "optuna.trial.FrozenTrial") -> float | None:
    """The value of a trial; None if it was pruned: Optuna keeps the last value before."""
    return trial.value if trial.state.name == "COMPLETE" else None


def _repair(journal: Path) -> None:
    """Cuts off a line that was not written to its end, as a kill leaves it: the next one would be added to it."""
    if journal.is_file() and not (content := journal.read_bytes()).endswith(b"\n"):
        journal.write_bytes(content[: content.rfind(b"\n") + 1])


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InputError("distill search needs optuna: pip install 'distill_lightning[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
