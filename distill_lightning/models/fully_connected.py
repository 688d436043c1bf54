"""Fully connected networks for flattened pictures (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 3)."""

import itertools

from torch import nn

from distill_lightning.ranges import Count, Fraction, Ranged


class FullyConnected(Ranged, nn.Sequential):
    """Linear layers with ReLU. With the default options (784-1200-1200-10, for MNIST) it has 2,395,210 parameters.

    Args:
        num_classes: K, from the data.
        in_channels: C, from the data.
        image_size: the side of the pictures in pixels, from the data.
        units: the number of units of each hidden layer.
        input_dropout: the probability of dropping an input value. For the teacher the paper refers to Hinton et al.
            (2012), who use 0.2.
        dropout: the probability of dropping a hidden unit. Hinton et al. (2012) use 0.5.
    """

    def __init__(
        self,
        num_classes: Count = 10,
        in_channels: Count = 1,
        image_size: Count = 28,
        units: tuple[Count, ...] = (1200, 1200),
        input_dropout: Fraction = 0.0,
        dropout: Fraction = 0.0,
    ) -> None:
        widths = [in_channels * image_size**2, *units]
        layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(input_dropout)]
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Linear(widths[-1], num_classes))
