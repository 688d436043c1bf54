"""Networks: plain torch modules that return logits (B, K) for pictures (B, C, H, W)."""

from distill_lightning.discovery import import_all
from distill_lightning.models.averaged_training import AveragedTraining
from distill_lightning.models.branched import BranchEnsemble, Gate
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.densenet import DenseLayer, DenseNet40, DenseNet100, SmallDenseNet
from distill_lightning.models.early_exit import EarlyExit, ExitHead
from distill_lightning.models.fully_connected import FullyConnected
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.models.lottery_convs import Conv2, Conv4, Conv6, LotteryConv
from distill_lightning.models.multi_view import MultiViewNet
from distill_lightning.models.narrowed import Narrowed
from distill_lightning.models.resnet import (
    BottleneckResNet110,
    CIFARResNet,
    ResNet8,
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
from distill_lightning.models.reused_classifier import ReusedClassifier
from distill_lightning.models.vgg import VGG16, VGG19, SmallVGG
from distill_lightning.models.wide_resnet import WideBlock, WideResNet
from distill_lightning.models.with_specialists import WithSpecialists

import_all(__name__)

__all__ = [
    "VGG16", "VGG19", "AveragedTraining", "BottleneckResNet110", "BranchEnsemble", "CIFARResNet", "Conv2", "Conv4",
    "Conv6", "ConvNet", "DenseLayer", "DenseNet40", "DenseNet100", "EarlyExit", "ExitHead", "FullyConnected", "Gate",
    "LeNet300100", "LotteryConv", "MultiViewNet", "Narrowed", "ResNet8", "ResNet8x4", "ResNet18", "ResNet20",
    "ResNet32", "ResNet32x4", "ResNet34", "ResNet56", "ResNet110", "ReusedClassifier", "SmallDenseNet", "SmallVGG",
    "WideBlock", "WideResNet", "WideResNet20x8", "WithSpecialists",
]  # fmt: skip
