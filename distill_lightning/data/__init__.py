"""Data modules, sample order and augmentation. Importing the package imports all of its modules."""

from distill_lightning.discovery import import_all

import_all(__name__)
