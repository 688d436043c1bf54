"""Networks: plain torch modules that return logits (B, K) for pictures (B, C, H, W)."""

from distill_lightning.discovery import import_all

import_all(__name__)
