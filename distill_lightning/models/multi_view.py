"""The network of the theorem of Allen-Zhu & Li (2020, arXiv:2012.09816, section 3), for `MultiView`.

    F_c(X) = sum_{r <= m} sum_p act(<w_cr, x_p>)

    act(z) = 0                        z < 0
             z^q / (q rho^(q - 1))    0 <= z <= rho
             z - (1 - 1/q) rho        z > rho

The activation is a ReLU with a smooth beginning: a small correlation with a feature gives a very small gradient. So of
two features the one that a neuron begins nearer to is learned first, and explains the sample away. The second layer is
fixed at 1, and there are no biases. The paper takes q >= 3 and rho = 1 / polylog(K); with few classes rho = 1.
"""

import math
from typing import Annotated

from torch import Tensor, nn

from distill_lightning.ranges import Count, Positive, Range, Ranged


class MultiViewNet(Ranged, nn.Module):
    """m neurons for each class, whose activations are summed over all patches of a picture.

    Args:
        num_classes: K, from the data.
        in_channels: d, the length of a patch, from the data.
        neurons: m, the number of neurons of each class.
        power: q.
        threshold: rho, from which on the activation is linear.
        init_std: the standard deviation of the weights at the start.
    """

    def __init__(
        self,
        num_classes: Count = 5,
        in_channels: Count = 150,
        neurons: Count = 10,
        power: Annotated[float, Range(at_least=2)] = 4.0,
        threshold: Positive = 1.0,
        init_std: Positive = 0.07,
    ) -> None:
        super().__init__()
        self.num_classes, self.power, self.threshold = num_classes, power, threshold
        self.neurons = nn.Linear(in_channels, num_classes * neurons, bias=False)
        nn.init.normal_(self.neurons.weight, std=init_std)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, d, H, W), of which each place is a patch."""
        activations = smooth_relu(self.neurons(images.flatten(2).transpose(1, 2)), self.power, self.threshold)
        logits: Tensor = activations.sum(1).unflatten(1, (self.num_classes, -1)).sum(2)
        return logits


def smooth_relu(z: Tensor, power: float, threshold: float) -> Tensor:
    """The activation at the top of this file; value and slope are continuous."""
    low = z.clamp(0, threshold)
    # a power that torch computes by a logarithm is much slower than two squares
    raised: Tensor = low.square().square() if power == 4 else low**power
    activations: Tensor = raised / (power * math.pow(threshold, power - 1)) + (z - threshold).relu()
    return activations
