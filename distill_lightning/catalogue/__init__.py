"""What runs there are on the disk, in which state, and what they were made from. Nothing here imports torch.

    info.py       what is known of one run without its checkpoints: `RunInfo`
    listing.py    finds the runs in a folder: `list_runs`, `Runs`
    choosing.py   the runs with a given data set, method, state or option; the order of a list
    columns.py    a list as a table of texts, with a column for each option that differs
    lineage.py    the runs and files that a run was made from: `Origin`
    shipped.py    what differs from the configuration that comes with the program

The commands are `distill_lightning.cli.list` and `distill_lightning.cli.show`.
"""

from distill_lightning.catalogue.info import RunInfo
from distill_lightning.catalogue.listing import Runs, list_runs

__all__ = ["RunInfo", "Runs", "list_runs"]
