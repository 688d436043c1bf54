"""Wrong inputs of many kinds, and the answer to each: one line, with what is wrong and what is right.

``python tests/cli/test_bad_inputs.py`` writes the answers as a table to docs/results/bad_inputs.md.
"""

import contextlib
import io
import math
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from helpers import command, distill, write_shard
from torchvision import transforms

import distill_lightning as dl
from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.cli.messages import Parser
from distill_lightning.data.augment import Cutout, RandomFlip, RandomRotation
from distill_lightning.data.digits import Digits
from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.mixing import CutMix
from distill_lightning.errors import InputError
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.dlb import DLB
from distill_lightning.methods.dml import DML
from distill_lightning.methods.kd import KD
from distill_lightning.methods.tf_kd_reg import TfKDReg
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.models.resnet import CIFARResNet
from distill_lightning.schedules import CosineCycles, MultiStep

TABLE = Path(__file__).parent.parent.parent / "docs" / "results" / "bad_inputs.md"
LONGEST = 200
"""Characters of an answer."""
B = "fit --config digits/baseline"
K = "fit --config digits/kd"
F = "fit --config folder/baseline --data.root"

MINE = """
from torch import nn

NUMBER = 3


def make(num_classes=10):
    return None


class Wide(nn.Sequential):
    def __init__(self, num_classes: int = 10, in_channels: int = 1):
        pool = nn.AdaptiveAvgPool2d(1)
        super().__init__(nn.Conv2d(in_channels, 4, (1, 3)), pool, nn.Flatten(), nn.Linear(4, num_classes))
"""
COMMANDS: list[tuple[str, list[str]]] = [
    # verbs and words
    ("fti", ["no command fti", "did you mean fit?"]),
    ("evaluate", ["no command evaluate", "did you mean validate?"]),
    ("--data.root x", ["a verb comes first"]),
    ("fit digits/dlb", ["digits/dlb is no option", "give --config digits/dlb"]),
    ("fit --model KD", ["needs --data", "give --config FILE"]),
    (f"{B} epochs 3", ["epochs is no option", "--"]),
    ("test", ["needs a run or a checkpoint", "distill test RUN"]),
    ("test nowhere", ["there is no checkpoint nowhere"]),
    ("test empty", ["empty is no run's folder", "checkpoints/last.ckpt"]),
    ("test averaged", ["averaged is a run of Ensemble, which has no checkpoint", "--config averaged/config.yaml"]),
    ("test removed", ["removed has no checkpoints/last.ckpt", "or it was removed"]),
    ("data digits/baseline --sheet sheet.jpg", ["--sheet is sheet.jpg", ".png"]),
    ("export averaged --out model.tflite", ["out is model.tflite", "the format onnx", ".onnx"]),
    ("test a.ckpt b.ckpt", ["b.ckpt is one word too many"]),
    ("validate text.ckpt", ["text.ckpt"]),
    ("configs digits/dbl", ["digits/dbl", "did you mean digits/dlb?"]),
    ("study nowhere", ["there is no study", "nowhere"]),
    ("members --seeds 2 --config digits/baseline --seed_everything 7", ["--seeds gives the members' seeds"]),
    ("members --seeds 3", ["members needs --config FILE"]),
    ("members --seeds 0,-1 --config digits/baseline", ["--seeds has -1", "from 0 to 4294967295"]),
    ("study quick --dry_run --tables_only", ["--tables_only", "not allowed with", "--dry_run"]),
    ("study quick --scheduler tcp://here:8786 --jobs 2", ["--jobs", "--scheduler", "leave it out"]),
    ("study quick --scheduler tcp://here:8786 --cluster slurm", ["--scheduler and --cluster", "one of them"]),
    ("study quick --cluster slrm", ["--cluster", "slrm", "slurm"]),
    ("study quick --cluster_options jobs.yaml", ["--cluster_options needs --cluster"]),
    ("search digits --cluster_options jobs.yaml", ["--cluster_options needs --cluster"]),
    ("inspect nowhere.pt", ["nowhere.pt"]),
    ("report nowhere", ["nowhere"]),
    ("completion fish", ["fish", "bash"]),
    ("zzz", ["no command zzz", "distill --help lists them"]),
    # names of options
    (f"{B} --modle KD", ["no option --modle", "did you mean --model?"]),
    (f"{B} --trainer.max_epoch 3", ["--trainer.max_epoch", "did you mean --trainer.max_epochs?"]),
    (f"{B} --data.augmnet [RandomCrop]", ["--data.augmnet", "did you mean --data.augment?"]),
    (f"{B} --data.batchsize 3", ["--data.batchsize", "did you mean --data.batch_size?"]),
    (f"{B} --data.qqqq 3", ["no option --data.qqqq", "data has image_size"]),
    (f"{B} --model.network.widht=4", ["--model.network.widht", "did you mean --model.network.width?"]),
    (f"{B} --model.optimizer.lrr 1", ["--model.optimizer.lrr", "did you mean --model.optimizer.lr?"]),
    (f"{B} --model.init_args.label_smothing 0.1", ["label_smothing", "did you mean --model.label_smoothing?"]),
    (f"{B} --epochs 3", ["no option --epochs", "did you mean --trainer.max_epochs?"]),
    (f"{B} --lr 3", ["no option --lr", "did you mean --model.optimizer.lr?"]),
    (f"{K} --temperature 3", ["no option --temperature", "did you mean --model.temperature?"]),
    (f"{B} --model KD --model.temprature 3", ["temprature", "did you mean --model.temperature?"]),
    (f"{B} --trainer.callbacks.teacher x", ["no callback with this option", "--config"]),
    (f"{K} --trainer.callbacks.teacher.views 3", ["teacher.views", "did you mean --trainer.callbacks.views?"]),
    (f"{K} --trainer.callbacks.teacher.qqqq 3", ["no plain network with this option", "--config"]),
    (f"{K} --config callbacks/lottery --trainer.callbacks.teacher x", ["Lottery, the last", "no option teacher"]),
    (f"{B} --config callbacks/lottery --trainer.callbacks.rouns 3", ["rouns", "--trainer.callbacks.rounds?"]),
    (f"{B} --checkpoint.every_n_step 3", ["every_n_step", "did you mean --checkpoint.every_n_steps?"]),
    ("fit --model.temperature 3", ["--model.temperature comes before its class", "give --model CLASS"]),
    ("fit --data Digits --model.network ConvNet", ["--model.network comes before its class", "give --model CLASS"]),
    (f"{B} --data.batch_size.x 3", ["--data.batch_size.x", "has no options of its own"]),
    (f"{B} --trainer.max_epochs", ["--trainer.max_epochs has no value"]),
    # classes
    ("fit --model KDs", ["model is KDs", "did you mean KD?"]),
    (f"{B} --model ConvNet", ["model is ConvNet", "no such class"]),
    (f"{B} --model FeatureTaught", ["model is FeatureTaught", "cannot be used itself: it lacks feature_terms"]),
    (f"{B} --model distill_lightning.methods.base.Method", ["Method, which cannot be used itself"]),
    (f"{B} --data ImageData", ["data is ImageData", "it lacks num_classes, read"]),
    (f"{B} --data CIFAR11", ["data is CIFAR11", "did you mean CIFAR10?"]),
    (f"{B} --model.network ConvNt", ["model.network is ConvNt", "did you mean ConvNet?"]),
    (f"{B} --model.network torchvision.models.resnet81", ["no resnet81", "did you mean resnet18?"]),
    (f"{B} --model.network nowhere.Net", ["nowhere.Net", "there is no module nowhere"]),
    (f"{B} --model.network mine.make", ["mine.make", "what it returns, as -> Module"]),
    (f"{B} --model.network mine.NUMBER", ["mine.NUMBER", "no class"]),
    (f"{B} --model.optimizer adamw", ["adamw", "did you mean AdamW?"]),
    (f"{B} --model.schedule Cosin", ["Cosin", "did you mean Cosine?"]),
    (f"{B} --data.augment RandomCrop", ["expected a list, as '[RandomCrop]'"]),
    (f"{B} --data.augment [RandomCorp]", ["RandomCorp", "did you mean RandomCrop?"]),
    (f"{B} --data.mix Mixpu", ["Mixpu", "did you mean Mixup?"]),
    (f"{B} --trainer.callbacks+ EarlyStopping", ["EarlyStopping needs the option monitor"]),
    (f"{B} --trainer.callbacks+ lightning.pytorch.callbacks.EarlyStoping", ["EarlyStoping", "EarlyStopping?"]),
    (f"{B} --trainer.logger WandbLoger", ["WandbLoger", "did you mean WandbLogger?"]),
    (f"{B} --model.help KDs", ["KDs", "did you mean KD?"]),
    (f"{B} --modle.help", ["no option --modle", "did you mean model?"]),
    # values
    (f"{B} --data.batch_size many", ["data.batch_size is many", "expected int, 1 or more"]),
    (f"{B} --model.optimizer.lr fast", ["model.optimizer.lr is fast", "expected float"]),
    (f"{B} --trainer.max_epochs two", ["trainer.max_epochs is two", "expected int"]),
    (f"{K} --trainer.callbacks.mode of", ["trainer.callbacks.mode is of", "one of online, table"]),
    (f"{B} --trainer.precision 17", ["trainer.precision is 17", "one of 64, 32, 16"]),
    (f"{B} --trainer.strategy ddpp", ["trainer.strategy is ddpp", "did you mean ddp?"]),
    (f"{B} --trainer.accelerator gpux", ["trainer.accelerator is gpux", "did you mean gpu?"]),
    (f"{B} --trainer.profiler simpel", ["trainer.profiler is simpel", "did you mean simple?"]),
    (f"{B} --trainer.limit_train_batches lots", ["trainer.limit_train_batches is lots", "int or float"]),
    (f"{B} --trainer.devices two --trainer.accelerator cpu", ["trainer", "devices"]),
    (f"{B} --seed_everything x", ["seed_everything is x", "int"]),
    (f"{B} --trainer 3", ["trainer is 3", "options by name"]),
    (f"{B} --model.compile perhaps", ["model.compile is perhaps", "true or false"]),
    # numbers out of range
    (f"{K} --model.temperature 0", ["model.temperature is 0.0", "above 0"]),
    (f"{K} --model.soft_weight 0 --model.hard_weight 0", ["soft_weight", "hard_weight", "above 0"]),
    (f"{B} --model.class_bias '{{\"3\": .nan}}'", ["model.class_bias[3] is nan", "a finite number"]),
    (f"{B} --data.num_workers -1", ["data.num_workers is -1", "from 0 to 512"]),
    (f"{B} --data.mix Mixup --data.mix.alpha .inf", ["data.mix.alpha is inf", "finite, above 0"]),
    (f"{B} --data.val_size 1.5", ["data.val_size is 1.5", "an int of 0 or more, or a float from 0 to below 1"]),
    (f"{B} --model.label_smoothing 2", ["model.label_smoothing is 2.0", "from 0 to below 1"]),
    (f"{B} --trainer.accumulate_grad_batches 0", ["trainer.accumulate_grad_batches is 0", "1 or more"]),
    (f"{B} --trainer.check_val_every_n_epoch 0", ["trainer.check_val_every_n_epoch is 0", "1 or more"]),
    (f"{B} --trainer.gradient_clip_val -1", ["trainer.gradient_clip_val is -1", "0 or more"]),
    (f"{B} --trainer.limit_train_batches 0.01", ["trainer.limit_train_batches is 0.01", "it leaves none"]),
    (f"{B} --trainer.limit_val_batches 0.01", ["trainer.limit_val_batches is 0.01", "it leaves none"]),
    (f"{B} --trainer.limit_test_batches 0.01", ["trainer.limit_test_batches is 0.01", "it leaves none"]),
    (f"{B} --trainer.limit_test_batches -1", ["trainer.limit_test_batches is -1", "0 or more"]),
    (f"{B} --trainer.num_sanity_val_steps -5", ["trainer.num_sanity_val_steps is -5", "-1 or more"]),
    (f"{B} --seed_everything -1", ["seed_everything is -1", "from 0 to 4294967295"]),
    (f"{B} --seed_everything 99999999999", ["seed_everything is 99999999999", "from 0 to 4294967295"]),
    (f"{B} --trainer.val_check_interval 1000", ["trainer.val_check_interval is 1000", "an epoch has"]),
    (f"{B} --model.schedule StepLR --model.schedule.step_size 0", ["model.schedule", "the first step of StepLR fails"]),
    (
        f"{B} --data.class_weights '{{0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0, 8: 0, 9: 0}}'",
        ["data.class_weights", "nothing would be trained"],
    ),
    # parts that do not work together
    (f"{B} --model.optimizer LBFGS", ["LBFGS does not work here", "such as AdamW"]),
    (f"{B} --model.optimizer SparseAdam", ["SparseAdam does not work here", "sparse gradients"]),
    (f"{B} --trainer.callbacks+ EMA --trainer.callbacks+ EMA", ["the callback EMA is given twice"]),
    (
        f"{B} --trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor val/nll --trainer.callbacks.mode foo",
        ["EarlyStopping refuses an option", "`mode` can be min, max, got foo"],
    ),
    (f"{B} --model.network LeNet300100 --trainer.callbacks+ ReestimateBatchNorm", ["has no batch norm"]),
    (f"{B} --model.network.dropout 1.5", ["model.network.dropout is 1.5", "from 0 to 1"]),
    (f"{B} --checkpoint.every_n_steps 0", ["checkpoint.every_n_steps is 0", "1 or more"]),
    (f"{B} --model.optimizer.lr=-1", ["model.optimizer", "-1"]),
    (f"{B} --trainer.max_epochs -1", ["trainer.max_epochs is -1", "1 or more"]),
    ("bench --config digits/baseline --turns 1", ["turns is 1", "2 turns or more"]),
    # the craft
    (
        f"{B} --model.initializer '[{{class_path: MSRA, init_args: {{params: heads.*}}}}]'",
        ["heads.*", "no parameter"],
    ),
    (f"{B} --model.initializer '[Bilinear]'", ["Bilinear cannot draw 12.weight", "square kernels"]),
    (f"{B} --model.network mine.Wide --model.initializer '[Bilinear]'", ["0.weight (4x1x1x3)", "square kernels"]),
    (f"{B} --model.fine_tuning.frozen '[stm.*]' --model.fine_tuning FineTuning", ["fine_tuning"]),
    (f"{B} --trainer.callbacks ProximalL1 --trainer.callbacks.strength 1 --trainer.callbacks.params '[x.*]'", ["x.*"]),
    (f"{B} --data.preprocess PCA --data.preprocess.k 65", ["k is 65", "64"]),
    (f"{B} --data.preprocess PCA --data.preprocess.k 50 --data.train_part 40", ["k is 50", "40"]),
    (
        f"{B} --data.preprocess ZCA --data.preprocess.eps 0 --data.train_part 40",
        ["data.preprocess.eps is 0.0", "above 0"],
    ),
    (f"{B} --model.schedule Polynomial --model.schedule.final 0 --model.schedule.power 0", ["power"]),
    (
        f"{B} --model.schedule torch.optim.lr_scheduler.ConstantLR --model.schedule.factor 0 "
        "--model.schedule.total_iters 999",
        ["the learning rate is 0 at every step"],
    ),
    (
        "test --config digits/baseline --use_ema --data.rot 3",
        ["there is no option --data.rot; did you mean --data.root?"],
    ),
    ("lr", ["CONFIG|RUN"]),
    ("lr nowhere", ["nowhere"]),
    ("lr digits/baselin", ["did you mean digits/baseline?"]),
    ("lr digits/ensemble", ["Ensemble trains nothing"]),
    ("lr empty", ["empty is no run's folder"]),
    ("lr digits/baseline --low 0", ["--low is 0", "0 < low < high"]),
    ("lr digits/baseline --low 1 --high 0.1", ["--low is 1 and --high is 0.1"]),
    ("lr digits/baseline --high nan", ["--high is nan"]),
    ("lr digits/baseline --steps 3", ["--steps is 3", "from 10 to 10,000"]),
    ("lr digits/baseline --steps many", ["--steps", "many"]),
    ("lr digits/baseline --plot rates.jpg", ["rates.jpg", ".svg or .png"]),
    ("lr digits/baseline --model.optimizer.lrr 3", ["did you mean --model.optimizer.lr?"]),
    ("lr digits/baseline --ckpt_path last", ["distill lr takes no --ckpt_path", "--start_from"]),
    # files
    ("fit --config nowhere.yaml", ["there is no file nowhere.yaml"]),
    ("fit --config digits/baselin", ["digits/baselin", "did you mean digits/baseline?"]),
    ("fit --config studies/quick", ["is a study", "distill study FILE"]),
    # pictures in tar files
    (f"{F} cut", ["cut/0.tar is damaged, or was cut, after 2,048 bytes", "restore it"]),
    (f"{F} unlabelled", ["unlabelled/0.tar: 1 of 1 pictures have no label, such as 7", "NAME.cls"]),
    (f"{F} labelled --data.parts '{{tset: x}}'", ["data.parts has tset", "train, val, test"]),
    (f"{F} labelled --data.parts '{{test: x}}'", ["data.parts names x", "no tar file in labelled"]),
    (f"{F} memory://nothing", ["memory://nothing cannot be listed"]),
    (f"{F} nostore://bucket", ["nostore://bucket cannot be opened", "Protocol not known"]),
    (f"{F} labelled --data.cache_bytes -1", ["data.cache_bytes is -1", "0 or more"]),
    (f"{B} --data MNIST --data.root nothing", ["MNIST is missing or damaged in nothing"]),
    (f"{K}", ["there is no teacher"]),
    (f"{B} --ckpt_path last", ["there is no unfinished run"]),
]
YAMLS: list[tuple[str, list[str]]] = [
    ("a: [b\nc: {", ["bad.yaml", "line 2"]),
    ("- 1\n- 2", ["bad.yaml holds a list", "options by name"]),
    ("modle: KD", ["no option modle", "did you mean model?"]),
    ("data: {class_path: Digits, init_args: {batch_siz: 3}}", ["data.batch_siz", "did you mean data.batch_size?"]),
    ("data: {class_path: Digit}", ["data is Digit", "did you mean Digits?"]),
    ("data: {class_path: Digits, init_args: {batch_size: many}}", ["data.batch_size is many", "expected int"]),
    ("trainer: {max_epoch: 3}", ["trainer.max_epoch", "did you mean trainer.max_epochs?"]),
    ("trainer: {callbacks: [{class_path: MaxNrm}]}", ["trainer.callbacks is MaxNrm", "did you mean MaxNorm?"]),
    ("trainer: {callbacks: [{class_path: MaxNorm, init_args: {limit: -1}}]}", ["trainer.callbacks.limit is -1"]),
    ("base: nowhere.yaml", ["bad.yaml builds on nowhere.yaml", "no file"]),
]
PYTHON: dict[str, tuple[Callable[[], object], list[str]]] = {
    "KD(network, temperature=0)": (lambda: KD(net(), temperature=0), ["KD.temperature is 0", "above 0"]),
    "KD(network, soft_weight=0, hard_weight=0)": (
        lambda: KD(net(), soft_weight=0, hard_weight=0),
        ["KD.soft_weight", "KD.hard_weight", "above 0"],
    ),
    "KD(network, temperature='4')": (lambda: KD(net(), temperature="4"), ["KD.temperature is '4'", "a number"]),
    "DLB(network, alpha=math.inf)": (lambda: DLB(net(), alpha=math.inf), ["DLB.alpha is inf", "finite, 0 or more"]),
    "DML(network, [])": (lambda: DML(net(), []), ["DML.peers is an empty list"]),
    "TfKDReg(network, right=1)": (lambda: TfKDReg(net(), right=1), ["TfKDReg.right is 1", "below 1"]),
    "Baseline(network, class_bias={'3': math.nan})": (
        lambda: Baseline(net(), class_bias={"3": math.nan}),
        ["Baseline.class_bias[3] is nan", "a finite number"],
    ),
    "Digits(num_workers=-1)": (lambda: Digits(num_workers=-1), ["Digits.num_workers is -1", "from 0 to 512"]),
    "Digits(batch_size=0)": (lambda: Digits(batch_size=0), ["Digits.batch_size is 0", "1 or more"]),
    "Digits(batch_size=64.0)": (lambda: Digits(batch_size=64.0), ["Digits.batch_size is 64.0", "a whole number"]),
    "Digits(batchsize=3)": (lambda: Digits(batchsize=3), ["no option batchsize", "did you mean batch_size?"]),
    "Digits(leave_out='12')": (lambda: Digits(leave_out="12"), ["Digits.leave_out is '12'", "a list, as ['12']"]),
    "Digits(augment=RandomFlip())": (
        lambda: Digits(augment=RandomFlip()),
        ["Digits.augment is a RandomFlip", "a list, as [RandomFlip(...)]"],
    ),
    "Digits(augment=[RandomFlip])": (
        lambda: Digits(augment=[RandomFlip]),
        ["Digits.augment[0] is the class RandomFlip", "an object, as RandomFlip(...)"],
    ),
    "Digits(augment=[torchvision.transforms.RandomHorizontalFlip()])": (
        lambda: Digits(augment=[transforms.RandomHorizontalFlip()]),
        ["Digits.augment[0] is a RandomHorizontalFlip of torchvision", "a Transform"],
    ),
    "Digits(mix='Mixup')": (lambda: Digits(mix="Mixup"), ["Digits.mix is 'Mixup'", "a Mixing or None"]),
    "Digits(preprocess='ZCA')": (
        lambda: Digits(preprocess="ZCA"),
        ["Digits.preprocess is 'ZCA'", "a Preprocessing, a list (a Preprocessing each) or None"],
    ),
    "KD(network, schedule=CosineCycles)": (
        lambda: KD(net(), schedule=CosineCycles),
        ["KD.schedule is the class CosineCycles", "an object, as CosineCycles(...)"],
    ),
    "KD(network, channels_last='no')": (
        lambda: KD(net(), channels_last="no"),
        ["KD.channels_last is 'no'", "True or False"],
    ),
    "KD(network, teacher=LeNet300100)": (
        lambda: KD(net(), teacher=LeNet300100),
        ["KD.teacher is the class LeNet300100", "an object, as LeNet300100(...)"],
    ),
    "KD(network, teacher=network)": (
        lambda: KD(network := net(), teacher=network),
        ["KD.teacher is the student itself", "give a copy"],
    ),
    "DML(network, [network])": (
        lambda: DML(network := net(), [network]),
        ["DML has a network twice", "give copies"],
    ),
    "DML(network, LeNet300100)": (
        lambda: DML(net(), LeNet300100),
        ["DML.peers is the class LeNet300100", "a list, as [LeNet300100]"],
    ),
    "Lottery(scope='all')": (lambda: Lottery(scope="all"), ["Lottery.scope is 'all'", "one of 'layers', 'global'"]),
    "Trainer(max_epochs='2')": (lambda: dl.Trainer(max_epochs="2"), ["Trainer.max_epochs is '2'", "a number"]),
    "Trainer(max_epochs=1.5)": (lambda: dl.Trainer(max_epochs=1.5), ["Trainer.max_epochs is 1.5", "a whole number"]),
    "Trainer(seed=-1)": (lambda: dl.Trainer(seed=-1), ["Trainer.seed is -1", "from 0 to 4294967295"]),
    "Trainer(precison='16-mixed')": (
        lambda: dl.Trainer(precison="16-mixed"),
        ["Trainer has no option precison", "did you mean precision?"],
    ),
    "Trainer(checkpoint={})": (lambda: dl.Trainer(checkpoint={}), ["Trainer.checkpoint is a dict", "a RunCheckpoint"]),
    "Trainer(callbacks=[EMA])": (
        lambda: dl.Trainer(callbacks=[dl.EMA]),
        ["Trainer.callbacks[0] is the class EMA", "an object, as EMA(...)"],
    ),
    "Trainer(accumulate_grad_batches=1.5)": (
        lambda: dl.Trainer(accumulate_grad_batches=1.5),
        ["accumulate_grad_batches is 1.5", "a whole number"],
    ),
    "Digits(label_noise=1.5)": (lambda: Digits(label_noise=1.5), ["Digits.label_noise is 1.5", "from 0 to 1"]),
    "ImageFolder('x', image_size=10**6)": (
        lambda: ImageFolder("x", image_size=10**6),
        ["ImageFolder.image_size is 1000000", "from 1 to 8192"],
    ),
    "RandomFlip(2)": (lambda: RandomFlip(2), ["RandomFlip.probability is 2", "from 0 to 1"]),
    "RandomRotation(degrees=0)": (lambda: RandomRotation(degrees=0), ["RandomRotation.degrees is 0", "above 0"]),
    "Cutout(size=0)": (lambda: Cutout(size=0), ["Cutout.size is 0", "1 or more"]),
    "CutMix(alpha=math.inf)": (lambda: CutMix(alpha=math.inf), ["CutMix.alpha is inf", "finite, above 0"]),
    "MultiStep([2, 1])": (lambda: MultiStep([2, 1]), ["MultiStep.milestones are [2, 1]", "ascending"]),
    "CosineCycles(0)": (lambda: CosineCycles(0), ["CosineCycles.cycles is 0", "1 or more"]),
    "CIFARResNet(depth=21)": (lambda: CIFARResNet(depth=21), ["depth is 21", "6 n + 2"]),
    "Lottery(linear=1.0)": (lambda: Lottery(linear=1.0), ["Lottery.linear is 1.0", "from 0 to below 1"]),
    "SoftTargets('t.ckpt', views=0)": (lambda: SoftTargets("t.ckpt", views=0), ["SoftTargets.views is 0", "1 or more"]),
}


def net() -> LeNet300100:
    return LeNet300100(image_size=8)


def prepare() -> None:
    """Makes the files that the inputs name, in the current folder."""
    Path("empty").mkdir()
    for name, method in (("averaged", "ensemble.Ensemble"), ("removed", "baseline.Baseline")):
        Path(name).mkdir()
        model = f"{{class_path: distill_lightning.methods.{method}}}"
        Path(name, "config.yaml").write_text(f"model: {model}\ndata: {{}}\n")
    Path("text.ckpt").write_text("no checkpoint")
    Path("mine.py").write_text(MINE)
    write_shard(Path("unlabelled/0.tar"), [("7", {"jpg": b"?"})])
    whole = write_shard(Path("labelled/0.tar"), [("1", {"cls": 1, "jpg": b"?"}), ("2", {"cls": 2, "jpg": b"?"})])
    Path("cut").mkdir()
    Path("cut/0.tar").write_bytes(whole.read_bytes()[:2048])


def check(answer: str, status: int, words: list[str]) -> None:
    assert status == 2, answer
    (line,) = answer.strip().splitlines()
    assert line.startswith("distill: ") and len(line) < LONGEST and "Traceback" not in line
    for word in words:
        assert word in line


@pytest.mark.parametrize(("given", "words"), COMMANDS, ids=[given for given, _ in COMMANDS])
def test_commands(given, words, capsys, monkeypatch):
    monkeypatch.syspath_prepend(".")
    monkeypatch.setattr("socket.socket.connect", no_network)
    prepare()
    status = distill(*shlex.split(given))
    check(capsys.readouterr().err, status, words)
    assert not list(Path().glob("logs/*/*/*/config.yaml"))


def no_network(*args):
    raise OSError("no network in tests")


@pytest.mark.parametrize(("text", "words"), YAMLS, ids=[text for text, _ in YAMLS])
def test_yamls(text, words, capsys):
    Path("bad.yaml").write_text(text)
    status = distill(*before(text), "--config", "bad.yaml")
    check(capsys.readouterr().err, status, words)


@pytest.mark.parametrize("code", PYTHON)
def test_python(code):
    make, words = PYTHON[code]
    with pytest.raises(InputError) as caught:
        make()
    check(f"distill: {caught.value}", 2, words)


@pytest.mark.parametrize("given", ["fti", f"{B} --trainer.max_epoch 3", "test nowhere", "fit --config nowhere.yaml"])
def test_in_a_process_of_its_own(given):
    done = subprocess.run(command(*shlex.split(given)), capture_output=True, text=True)
    assert done.stdout == ""
    check(done.stderr, done.returncode, [])


def test_there_are_eighty_and_the_table_has_them_all():
    text = TABLE.read_text()
    inputs = [*(f"distill {given}" for given, _ in COMMANDS), *(as_cell(text) for text, _ in YAMLS), *PYTHON]
    assert len(inputs) >= 80
    for given in inputs:
        assert f"`{given}`" in text, "write the table again: python tests/cli/test_bad_inputs.py"


def before(text: str) -> list[str]:
    """The words of the command before a YAML: a file that builds on another stands alone."""
    return ["fit"] if text.startswith("base") else shlex.split(B)


def as_cell(text: str) -> str:
    return text.replace("\n", " ⏎ ").replace("|", "\\|")


def answer_of(*args: str) -> str:
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
        status = distill(*args)
    return f"{status} | {as_cell(err.getvalue().strip().removeprefix('distill: '))}"


def write_table() -> None:
    """Writes what the command and the classes answer now."""
    lines = [
        "# Wrong inputs and their answers",
        "",
        "Each answer is one line on standard error, after `distill: `, and the exit status is 2. Python raises",
        "`InputError` with the same line. `python tests/cli/test_bad_inputs.py` makes this table; the tests check each",
        "answer.",
        "",
        "| input | status | answer |",
        "|---|---|---|",
    ]
    os.chdir(tempfile.mkdtemp())
    sys.path.insert(0, ".")
    prepare()
    rows = [(f"distill {given}", answer_of(*shlex.split(given))) for given, _ in COMMANDS]
    for text, _ in YAMLS:
        Path("bad.yaml").write_text(text)
        rows.append((as_cell(text), answer_of(*before(text), "--config", "bad.yaml")))
    for code, (make, _) in PYTHON.items():
        try:
            make()
        except InputError as error:
            rows.append((code, f"InputError | {error}"))
    cells = [f"| `{given}` | {answer} |" for given, answer in rows]
    TABLE.write_text("\n".join([*lines, *cells]) + "\n")


if __name__ == "__main__":
    write_table()


class Fussy:
    def __init__(self, number: int = 0) -> None:
        raise InputError(f"number is {number}, and none is right")


@pytest.mark.parametrize("hint", [int | Fussy, Fussy | None, str | list[Fussy]])
def test_refusal_of_any_type_of_a_union(hint):
    """A class refuses its arguments, and other types of the option were tried before or after it."""
    parser = Parser()
    parser.add_argument("--fussy", type=hint)
    spec = {"class_path": f"{__name__}.Fussy", "init_args": {"number": 3}}
    given = parser.parse_object({"fussy": [spec] if "list" in str(hint) else spec})
    with pytest.raises(InputError, match="^number is 3, and none is right$"):
        parser.instantiate_classes(given)
