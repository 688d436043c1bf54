"""Parameter counts of the literature, and shapes."""

import pytest
import torch
from torch import nn

from distill_lightning.models.averaged_training import AveragedTraining
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.densenet import DenseNet40, DenseNet100, SmallDenseNet
from distill_lightning.models.fully_connected import FullyConnected
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.models.lottery_convs import Conv2, Conv4, Conv6
from distill_lightning.models.resnet import (
    BottleneckResNet110,
    CIFARResNet,
    ResNet8x4,
    ResNet18,
    ResNet20,
    ResNet32,
    ResNet32x4,
    ResNet34,
    ResNet56,
    ResNet110,
    WideResNet20x8,
)
from distill_lightning.models.vgg import VGG16, VGG19
from distill_lightning.models.wide_resnet import WideResNet


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("network", "classes", "count"),
    [
        (ResNet20, 100, 278_324),
        (ResNet32, 100, 472_756),
        (ResNet56, 100, 861_620),
        (ResNet110, 100, 1_736_564),
        (BottleneckResNet110, 100, 1_170_868),
        (WideResNet20x8, 100, 6_871_220),
        (ResNet8x4, 100, 1_233_540),
        (ResNet32x4, 100, 7_433_860),
        (ResNet18, 10, 11_173_962),
        (ResNet34, 10, 21_282_122),
        (WideResNet, 100, 36_536_884),
        (Conv2, 10, 4_301_642),
        (VGG16, 10, 14_728_266),
        (VGG19, 10, 20_040_522),
        (DenseNet40, 10, 1_019_722),
        (Conv4, 10, 2_425_930),
        (Conv6, 10, 2_262_602),
        (WideResNet, 10, 36_479_194),
        (FullyConnected, 10, 784 * 1200 + 1200 + 1200 * 1200 + 1200 + 12010),
    ],
)
def test_parameter_counts(network, classes, count):
    assert parameters(network(classes)) == count


def test_lenet():
    network = LeNet300100()
    assert parameters(network) == 266_610
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert LeNet300100(image_size=8)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("size", [8, 28, 32])
def test_convnet_takes_small_pictures(size):
    assert ConvNet(num_classes=7)(torch.zeros(2, 1, size, size)).shape == (2, 7)


def test_convnet_without_batch_norm():
    network = ConvNet(norm=False)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network) and network[0].bias is not None
    assert [type(network.get_submodule(name)) for name in network.exits] == [nn.ReLU] * 3


@pytest.mark.parametrize("network", [ResNet20, ResNet18])
def test_resnets_take_other_channels(network):
    assert network(5, in_channels=1).eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 5)


def test_depth_must_fit():
    with pytest.raises(ValueError, match="6 n \\+ 2"):
        CIFARResNet(depth=21)
    with pytest.raises(ValueError, match="9 n \\+ 2"):
        CIFARResNet(depth=21, bottleneck=1)


@pytest.mark.parametrize("depth", [10, 16])
def test_wide_resnet_halves_twice(depth):
    network = WideResNet(5, in_channels=1, depth=depth, widen=1, dropout=0.3).eval()
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    assert network.features(torch.zeros(2, 1, 32, 32)).shape == (2, 64, 8, 8)
    with pytest.raises(ValueError, match="6 n \\+ 4"):
        WideResNet(5, depth=depth + 1)


def test_averaged_training_is_the_mean_of_networks_that_start_apart():
    network = AveragedTraining(lambda: FullyConnected(units=(8,)), n=3)
    images = torch.randn(4, 1, 28, 28)
    each = torch.stack([one(images) for one in network.networks])
    assert torch.equal(network(images), each.mean(0))
    assert all((each[a] - each[b]).abs().max() > 0.01 for a, b in ((0, 1), (0, 2), (1, 2)))
    with pytest.raises(ValueError, match="n is 0"):
        AveragedTraining(FullyConnected, n=0)


def test_dropout_of_pixels_and_units_is_apart():
    rates = [
        m.p for m in FullyConnected(units=(5, 5), input_dropout=0.2, dropout=0.5) if isinstance(m, torch.nn.Dropout)
    ]
    assert rates == [0.2, 0.5, 0.5]


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("network", [VGG16, DenseNet40, WideResNet20x8])
def test_networks_of_both_sizes(network, size):
    assert network(7, in_channels=1).eval()(torch.zeros(1, 1, size, size)).shape == (1, 7)


def test_densenet():
    assert round(parameters(DenseNet100()) / 1e6, 1) == 7.0
    with pytest.raises(ValueError, match="3 n \\+ 4"):
        SmallDenseNet(depth=41)
