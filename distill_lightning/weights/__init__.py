"""Weights of any origin: reads them from a file, puts them into a network by name and shape, and says what happened.

    source = read_source("resnet50.safetensors")
    report = put_weights(network, source)
    print(report.line())

``load_weights`` is for the program's own files: names and shapes must be exactly those of the network.
"""

from distill_lightning.weights.exact import load_weights, must_fit, of_model
from distill_lightning.weights.matching import Matching, match, put_weights
from distill_lightning.weights.reading import Source, checkpoint_of, read_source
from distill_lightning.weights.report import Report

__all__ = [
    "Matching", "Report", "Source", "checkpoint_of", "load_weights", "match", "must_fit", "of_model", "put_weights",
    "read_source",
]  # fmt: skip
