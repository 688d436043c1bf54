"""Callbacks: soft targets, checkpoints, pruning, progress. Importing the package imports every file in it."""

from distill_lightning.discovery import import_all

import_all(__name__)
