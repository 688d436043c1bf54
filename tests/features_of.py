"""Short fits of methods that learn from features, and networks that give chosen features."""

import torch
from helpers import bare_trainer, sgd
from torch import nn
from torchvision.ops import Permute

from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.augment import RandomCrop
from distill_lightning.data.digits import Digits
from distill_lightning.methods.at import AT
from distill_lightning.models import ConvNet


def made(function, factor, offset, *shape):
    return (
        function(factor * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + offset).reshape(shape).float()
    )


class Says(nn.Module):
    """Gives this, for any input."""

    def __init__(self, what: torch.Tensor) -> None:
        super().__init__()
        self.what = nn.Parameter(what.clone())

    def forward(self, x):
        return self.what + 0


def teacher(width: int = 8, **options) -> ConvNet:
    torch.manual_seed(1)
    return ConvNet(width=width, **options)


def fit(method, given=None, callback=None, **data):
    """The batches, as the method had them."""
    callback = callback or SoftTargets(PlainNetwork(teacher()) if given is None else given)
    batches, original = [], method.training_loss
    method.training_loss = lambda batch, position: (batches.append(batch), original(batch, position))[1]
    bare_trainer(max_epochs=1, num_sanity_val_steps=1, callbacks=[callback]).fit(
        method, datamodule=Digits(**{"batch_size": 100, "train_part": 300, "augment": [RandomCrop(1)], **data})
    )
    return batches


def student(method=AT, **options):
    torch.manual_seed(0)
    return method(ConvNet(), optimizer=sgd, **options)


def last_channels() -> nn.Module:
    """A network whose layer 2 gives (B, H, W, C)."""
    there, back = Permute([0, 2, 3, 1]), Permute([0, 3, 1, 2])
    maps = [nn.Conv2d(1, 6, 2, 2), there, nn.Linear(6, 6), back, nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*maps, nn.Flatten(), nn.Linear(6, 10))
