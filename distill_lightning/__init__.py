"""Trains better and smaller image classifiers: distillation, self-distillation, ensembles and lottery tickets."""

from distill_lightning.version import __version__ as __version__
