"""Runs that are trained side by side in one process: their networks are computed as one by ``torch.func.vmap``.

turns.py        threads of which one runs at a time, and which meet: `Turns`
stacked.py      networks of one architecture with their parameters in one stack: `StackedNetworks`
together.py     ordinary runs that meet at the passes of their networks: `fit_together`
"""

from distill_lightning.members.together import fit_together
from distill_lightning.members.turns import ProcessState

__all__ = ["ProcessState", "fit_together"]
