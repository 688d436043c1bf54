"""What goes on beside a method: soft targets, checkpoints, progress. Importing the package imports every file of it."""

from distill_lightning.discovery import import_all

import_all(__name__)
