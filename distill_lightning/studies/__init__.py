"""A study: several runs, some of which need others. ``distill study FILE`` trains them and makes tables of the results.

A study is a YAML file.

    for: {seed: 3}                          # variables: a number n means the values 0 .. n - 1; a list gives the values
    options: {trainer.max_epochs: 20}       # options of every run
    runs:
      teacher:
        config: ../mnist/teacher.yaml       # one file or a list of files; paths start at the study's folder
      student:
        config: ../mnist/kd.yaml
        for: {seed: 3, temperature: [1, 4, 20]}     # replaces the study's variables
        options:                                    # these win over the study's options
          model.temperature: "{temperature}"        # the value of a variable
          trainer.callbacks.teacher: ${teacher}     # the checkpoint of another run
    tables, figures: see `distill_lightning.report.specification`

An entry of ``runs`` makes one run for each combination of its variables. A variable called ``seed`` is the run's seed.

``${teacher}`` is a reference. It stands for the last checkpoint of the runs of the entry ``teacher`` that have the
same values as this run in all variables that both have. It is one path where this selects one run, and a list of
paths where ``teacher`` has further variables (the members of an ensemble). ``${teacher/best}`` takes best.ckpt,
``${single/ticket}`` takes the lottery ticket, and ``${single: member=0}`` takes the runs with that value.

    result:
      function: distill_lightning.theory.gaussian_inputs.figure_4     # instead of config: a function that computes
      options: {decay: 0.01}                      # its arguments; the study's options are not for it

A function is called by ``distill compute``, and leaves a folder with a summary.json as a run does. Of the options that
are given to every run on the command line, it gets those of its data.

Each run is an ordinary run. Its name is the entry, the variables and a digest of its configuration. When a value
changes, the runs that depend on it get another digest and are trained anew; all others stay. A run is not trained
again if a finished run with its digest lies anywhere under the log folder. A run locks its folder
(`distill_lightning.runs.Run.hold`): a study waits for runs that another process is training.

From the file to the last run, in this order:

    reading.py      reads and checks the YAML: `Study`
    references.py   ``${teacher/best: seed=0}``: `Reference`
    plan.py         lists each run with its arguments and the runs that it needs: `StudyPlan`, `PlannedRun`
    finished.py     finds finished runs on disk, which are not trained again
    records.py      keeps the results of finished runs without their weights
    resources.py    what a run needs of the machine that trains it: `Resources`
    workers.py      dask's workers: in this process, at a scheduler, or in a queue: `Workers`
    queues.py       the jobs of a queue, by dask-jobqueue: `Queue`
    training.py     hands each run to dask when the runs that it needs are done: `Training`
    task.py         what a worker does: it trains a run that is not finished: `Task`, `Outcome`
    process.py      the process of a run, with its share of cores and GPUs: `StartedRun`
    snapshot.py     the state of all runs at one moment: `Snapshot`
    display.py      shows a snapshot on the terminal: `Display`

Nothing here imports torch. Only workers.py and training.py import dask when they are imported.
"""

from distill_lightning.studies.display import Display, status_line
from distill_lightning.studies.finished import read_summary
from distill_lightning.studies.plan import PlannedRun, Resolve, Resolved, StudyPlan, as_arguments, plan_study
from distill_lightning.studies.reading import (
    SET_BY_STUDY,
    Entry,
    Options,
    Study,
    check_keys,
    check_type,
    configs_of,
    read_runs,
    read_study,
)
from distill_lightning.studies.records import write_record
from distill_lightning.studies.snapshot import Snapshot

__all__ = [
    "SET_BY_STUDY",
    "Display",
    "Entry",
    "Options",
    "PlannedRun",
    "Resolve",
    "Resolved",
    "Snapshot",
    "Study",
    "StudyPlan",
    "as_arguments",
    "check_keys",
    "check_type",
    "configs_of",
    "plan_study",
    "read_runs",
    "read_study",
    "read_summary",
    "status_line",
    "write_record",
]
