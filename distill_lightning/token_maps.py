"""Features at the places of a picture as maps (B, C, H, W), also for networks that give tokens.

Vision transformers give tokens (B, N, C), of which the first are no places of the picture, as the class token. The
network says how many these are; the shape alone does not.
"""

import math
from typing import NamedTuple

from torch import Tensor, nn

from distill_lightning.errors import InputError


class Form(NamedTuple):
    """The form of a network's features.

    Args:
        network: the class of the network, for errors.
        prefix: the number of tokens that are no places of the picture and come first.
    """

    network: str = ""
    prefix: int = 0

    @classmethod
    def of(cls, network: nn.Module) -> "Form":
        """The form of a network's features: what networks of timm say, and the transformers of torchvision."""
        prefix = getattr(network, "num_prefix_tokens", None)  # timm
        if prefix is None:
            prefix = int(hasattr(network, "class_token"))  # torchvision
        return cls(type(network).__name__, int(prefix))

    def map_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The shape (C, H, W) of the features of a picture as a map.

        Args:
            shape: their own shape, (C, H, W) or (N, C).

        Raises:
            InputError: they have no places, fewer than two, or not those of a square.
        """
        if len(shape) == 2:
            side = math.isqrt(max(shape[0] - self.prefix, 0))
            found = (shape[1], side, side) if side and side**2 == shape[0] - self.prefix else None
        elif len(shape) == 3:
            found = (shape[0], shape[1], shape[2])
        else:
            found = None
        if found is None or found[1] * found[2] < 2:
            raise InputError(
                f"the layer of {self.network} whose places are compared gives {shape}, not two places or more: give an "
                "earlier one, or local_weight 0"
            )
        return found

    def as_map(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) or (B, N, C) as a map (B, C, H, W)."""
        if features.ndim == 4:
            return features
        places = features[:, self.prefix :].mT
        side = math.isqrt(places.shape[2])
        return places.reshape(*places.shape[:2], side, side)
