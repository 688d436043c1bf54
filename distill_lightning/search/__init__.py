"""A search for options: ``distill search FILE`` trains trials with values that Optuna chooses by the trials before.

    config: ../digits/baseline.yaml             # one file or a list of files; paths start at the search's folder
    options: {trainer.max_epochs: 10}           # options of every trial
    space:                                      # options that are searched
      model.optimizer.lr: {from: 1.0e-3, to: 10.0, log: true}
      model.network.width: {from: 4, to: 32}    # whole numbers, since both ends are
      model.schedule: [Cosine, Constant]        # one of these
    trials: 20
    seeds: 1                                    # a trial's value is the mean over the seeds 0 .. n - 1
    metric: val/accuracy                        # of the validation split, at the end of training
    lowest_is_best: false
    prune: true                                 # ends trials that are worse than half of the others at the same step

Each trial is an ordinary run, found again by its configuration, as those of a study are. What was tried lies in a
journal; the same command goes on from there. The choice of a trial depends on the search, on ``--seed`` and on the
results before it, so a search that was interrupted makes the same trials, if one is made at a time and none is pruned:
when a trial is pruned depends on time.

    reading.py      reads and checks the YAML: `Search`
    trials.py       asks Optuna for values, and tells it results: `Trials`
    outcome.py      the table, the best configuration, the picture of importance: `Outcome`

Nothing here imports torch. Optuna is an extra (``pip install 'distill_lightning[search]'``).
"""

from distill_lightning.search.outcome import Outcome
from distill_lightning.search.reading import Search, read_search
from distill_lightning.search.trials import Trial, Trials

__all__ = ["Outcome", "Search", "Trial", "Trials", "read_search"]
