"""Initialisers: the first weights of a network, drawn by rules (see ``rules``)."""

from distill_lightning.initializers.caffe import (
    MSRA,
    Bilinear,
    Constant,
    Gaussian,
    PositiveUnitball,
    Uniform,
    Xavier,
    fans,
)
from distill_lightning.initializers.lsuv import LSUV
from distill_lightning.initializers.others import GAINS, Kaiming, Orthogonal, TruncNormal, ZeroLastGamma
from distill_lightning.initializers.rules import Initializer, initialise

__all__ = [
    "GAINS", "LSUV", "MSRA", "Bilinear", "Constant", "Gaussian", "Initializer", "Kaiming", "Orthogonal",
    "PositiveUnitball", "TruncNormal", "Uniform", "Xavier", "ZeroLastGamma", "fans", "initialise",
]  # fmt: skip
