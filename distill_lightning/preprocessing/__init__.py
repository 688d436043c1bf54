"""Preprocessing of pictures beyond mean and standard deviation per channel: fitted to the training samples.

    data = dl.CIFAR100(preprocess=dl.preprocessing.ZCA(eps=0.1))

``fitting`` has the options and their formulas, ``steps`` what is applied to a picture. Batches have pictures that are
normalised per channel, as without preprocessing; so augmentation, mixing and teachers are not concerned. A method
applies the preprocessing right before its network, a teacher its own, and an export contains it.
"""

from distill_lightning.preprocessing.fitting import (
    GCN,
    PCA,
    ZCA,
    MeanPicture,
    PatchZCA,
    PCAWhitening,
    PixelStandardise,
    Preprocessing,
    fit_all,
)
from distill_lightning.preprocessing.spectra import covariance, principal_components, whitening
from distill_lightning.preprocessing.steps import Fitted

__all__ = [
    "GCN", "PCA", "ZCA", "Fitted", "MeanPicture", "PCAWhitening", "PatchZCA", "PixelStandardise", "Preprocessing",
    "covariance", "fit_all", "principal_components", "whitening",
]  # fmt: skip
