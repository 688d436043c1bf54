"""Fully connected networks on the flat picture, as in Hinton, Vinyals & Dean (2015), section 3."""

from torch import nn


class FullyConnected(nn.Sequential):
    """Hidden layers of rectified units. 784-1200-1200-10 on MNIST has 2,395,210 parameters.

    Args:
        num_classes, in_channels, image_size: of the data.
        units: of each hidden layer.
        input_dropout: probability of dropping a pixel; 0.2 in the source of the paper's teacher (Hinton et al. 2012).
        dropout: of dropping a hidden unit; 0.5 there.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        units: tuple[int, ...] = (1200, 1200),
        input_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        widths = [in_channels * image_size**2, *units]
        layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(input_dropout)]
        for n_in, n_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Linear(widths[-1], num_classes))
