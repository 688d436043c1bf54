"""A LightningModule per method, one paper a file. Importing the package imports every file of it."""

from distill_lightning.discovery import import_all

import_all(__name__)
