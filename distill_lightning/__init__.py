"""Trains better and smaller image classifiers: distillation, self-distillation, ensembles and lottery tickets.

    import distill_lightning as dl

    student = dl.KD(dl.models.ResNet20, teacher="teacher.ckpt", temperature=4.0)
    result = dl.Trainer(max_epochs=30).fit(student, dl.CIFAR100())
    dl.load(result.folder).predict("pictures/")

The names of this package are imported when they are first used. ``__init__.pyi`` lists them.
"""

import lazy_loader

from distill_lightning.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
