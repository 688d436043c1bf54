"""Trains better and smaller image classifiers: distillation, self-distillation, ensembles and lottery tickets."""

__version__ = "0.2.0"
