"""LeNet-300-100 (LeCun et al. 1998): a fully connected network with two hidden layers, for flattened pictures."""

import itertools

from torch import nn

from distill_lightning.ranges import Count, Ranged


class LeNet300100(Ranged, nn.Sequential):
    """Hidden layers of 300 and 100 units with ReLU. For MNIST (784-300-100-10) it has 266,610 parameters.

    The initial weights have Glorot's normal distribution and the biases are 0 (Frankle & Carbin 2019, arXiv:1803.03635,
    appendix G).

    Args:
        num_classes: K, from the data.
        in_channels: C, from the data.
        image_size: the side of the pictures in pixels, from the data.
    """

    def __init__(self, num_classes: Count = 10, in_channels: Count = 1, image_size: Count = 28) -> None:
        widths = [in_channels * image_size**2, 300, 100]
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], num_classes))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)
