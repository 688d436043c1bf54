"""The methods. Each is a LightningModule in its own file. Importing the package imports all of its modules."""

from distill_lightning.discovery import import_all

import_all(__name__)
