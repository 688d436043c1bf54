"""The trials of a search: Optuna chooses their values, and keeps them and their results in a journal."""

import os
import uuid
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
FOR_GOOD = "for good"
"""The mark of a trial without a result that is not made again."""


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
    """The trials of a search so far. Only one process at a time may have them.

    Trials that were interrupted, or failed in an earlier start by something else than their values, are made again.

    Args:
        search: the search.
        folder: the folder of its journal.
        seed: the seed of the choices.
        of_runs: what can change the results of its runs, beside the values of the space.

    Raises:
        InputError: Optuna is not installed, or the journal cannot be read or written.
    """

    def __init__(self, search: Search, folder: Path, seed: int = 0, of_runs: str = "") -> None:
        self.optuna = _optuna()
        self.search, self.seed = search, seed
        self.start = str(uuid.uuid4())
        """Marks the trials that failed in this start."""
        # absolute: Optuna's lock is a link to it, and waits for ever for one that leads nowhere
        journal = (folder / "trials.journal").absolute()
        backend, pruners = self.optuna.storages.journal.JournalFileBackend, self.optuna.pruners
        try:
            folder.mkdir(parents=True, exist_ok=True)
            Path(f"{journal}.lock").unlink(missing_ok=True)  # as a kill leaves it
            _repair(journal)
            self.study: optuna.Study = self.optuna.create_study(
                study_name=f"{search.digest(of_runs)}-{seed}",
                storage=self.optuna.storages.JournalStorage(backend(str(journal))),
                load_if_exists=True,
                direction="minimize" if search.lowest_is_best else "maximize",
                pruner=pruners.MedianPruner(FIRST) if search.prune else pruners.NopPruner(),
            )
        except OSError as error:
            raise InputError(f"{journal} cannot be read and written: {error.strerror}") from error
        except Exception as error:  # whatever Optuna's replay of a wrong line comes to
            raise InputError(f"{journal} is damaged: delete it, and finished runs are found again") from error
        self._asked: dict[int, optuna.Trial] = {}
        self._go_on()

    def _go_on(self) -> None:
        """Puts the trials of earlier starts first that have no result."""
        states = self.optuna.trial.TrialState
        again: dict[str, dict[str, Any]] = {}
        for one in self.study.get_trials(deepcopy=False):
            if one.state is states.RUNNING:
                self.study.tell(one.number, state=states.FAIL)
            key = repr(sorted(one.params.items()))
            again.pop(key, None)
            if one.params and not self._counts(one):  # those that wait have none yet
                again[key] = one.params
        waiting = self.study.get_trials(deepcopy=False, states=(states.WAITING,))
        queued = [one.system_attrs.get("fixed_params") for one in waiting]
        for params in again.values():
            if params not in queued:
                self.study.enqueue_trial(params)

    def ask(self, count: int) -> list[Trial]:
        """Chooses the values of the next trials.

        Args:
            count: how many at most; fewer are given at the end of the search.
        """
        ended = len(self.ended())
        # of the seed and of how many trials have ended, not of restarts
        self.study.sampler = self.optuna.samplers.TPESampler(seed=1000 * self.seed + ended, constant_liar=True)
        asked = []
        for _ in range(min(count, self.search.trials - ended)):
            trial = self.study.ask()
            for name, one in self.search.space.items():
                _suggest(trial, name, one)
            self._asked[trial.number] = trial
            asked.append(Trial(trial.number, self._values(trial.params), None, "open"))
        return asked

    def report(self, trial: Trial, step: int, value: float) -> bool:
        """Notes a value before the end, and says whether the trial should be pruned."""
        asked, states = self._asked[trial.number], self.optuna.trial.TrialState
        asked.report(value, step)
        done = self.study.get_trials(deepcopy=False, states=(states.COMPLETE,))
        whole = max((one.last_step or 0 for one in done), default=0)
        return step >= UNTIL * whole and asked.should_prune()

    def tell(self, trial: Trial, value: float | None, because: str = "") -> None:
        """Notes the result of a trial.

        Args:
            trial: the trial.
            value: the metric; None if there is none.
            because: why there is none: "pruned"; "diverged", which its values are the reason of; or anything else, and
                the next start makes it again.
        """
        states = self.optuna.trial.TrialState
        asked = self._asked.pop(trial.number)
        if value is not None:
            self.study.tell(asked, value)
            return
        asked.set_user_attr("ended", FOR_GOOD if because in ("pruned", "diverged") else self.start)
        self.study.tell(asked, state=states.PRUNED if because == "pruned" else states.FAIL)

    def ended(self) -> list[Trial]:
        """The trials that have a result, or ended without one, in their order."""
        states = self.optuna.trial.TrialState
        names = {states.COMPLETE: "done", states.PRUNED: "pruned", states.FAIL: "failed"}
        ended = [one for one in self.study.get_trials(deepcopy=False) if one.state in names and self._counts(one)]
        # numbered without those that were interrupted
        return [
            Trial(number, self._values(one.params), _result(one), names[one.state]) for number, one in enumerate(ended)
        ]

    def _counts(self, trial: "optuna.trial.FrozenTrial") -> bool:
        return trial.state.name == "COMPLETE" or trial.user_attrs.get("ended") in (FOR_GOOD, self.start)

    def importance(self) -> dict[str, float]:
        """The share of each option in the variance of the results, the largest first (fANOVA, Hutter et al. 2014);
        empty if there are too few results, or all are equal.
        """
        done = [trial.value for trial in self.ended() if trial.state == "done"]
        if len(set(done)) < 2 or len(done) < FIRST or len(self.search.space) < 2:
            return {}
        evaluator = self.optuna.importance.FanovaImportanceEvaluator(seed=self.seed)
        return dict(self.optuna.importance.get_param_importances(self.study, evaluator=evaluator))

    def _values(self, params: dict[str, Any]) -> Options:
        return {
            name: params[name] if isinstance(one, Between) else one[params[name]]
            for name, one in self.search.space.items()
            if name in params
        }


def _suggest(trial: "optuna.Trial", name: str, one: Between | Sequence[Any]) -> None:
    """Lets Optuna choose a value; of a list its place, as a value may be of any type."""
    if not isinstance(one, Between):
        trial.suggest_categorical(name, range(len(one)))
    elif one.whole:
        trial.suggest_int(name, int(one.low), int(one.high), log=one.log)
    else:
        trial.suggest_float(name, one.low, one.high, log=one.log)


def _result(trial: "optuna.trial.FrozenTrial") -> float | None:
    """The value of a trial; None if it was pruned: Optuna keeps the last value before."""
    return trial.value if trial.state.name == "COMPLETE" else None


def _repair(journal: Path) -> None:
    """Cuts off a line that was not written to its end, as a kill leaves it: the next one would be added to it."""
    if journal.is_file() and not (content := journal.read_bytes()).endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InputError("distill search needs optuna: pip install 'distill_lightning[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
