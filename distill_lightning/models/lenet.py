"""LeNet-300-100 (LeCun et al. 1998): two hidden layers of 300 and 100 units on the flat picture."""

from torch import nn


class LeNet300100(nn.Sequential):
    """784-300-100-10 on MNIST, 266,610 parameters.

    Weights are drawn from Glorot's normal distribution, biases are zero, as in Frankle & Carbin (2019), appendix G.

    Args:
        num_classes, in_channels, image_size: of the data.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        widths = [in_channels * image_size**2, 300, 100]
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], num_classes))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)
