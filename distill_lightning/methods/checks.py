"""Checks before the first step: whether network, batches and number of processes fit together."""

import copy
import platform
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchvision.ops import StochasticDepth

from distill_lightning.data.base import ImageData
from distill_lightning.data.loaders import refuse_none_left
from distill_lightning.distributed import say
from distill_lightning.errors import InputError
from distill_lightning.models.activations import other_activations
from distill_lightning.models.outputs import auxiliary_weight, dry_pictures, input_type, main_output
from distill_lightning.seeds import BUILD, run_seed, seed_for


@torch.no_grad()
def refuse_misfit(network: nn.Module, data: ImageData) -> None:
    """Checks that a network fits the data, with a forward pass of one blank picture.

    It also gives lazy layers their shapes. Their weights depend on the seed of the run alone.

    Raises:
        InputError: the network cannot take the pictures, or does not return K logits.
    """
    name = type(network).__name__
    lazy = any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers()))
    with torch.random.fork_rng(devices=[], enabled=lazy):
        if lazy:
            torch.manual_seed(seed_for(BUILD, run_seed()))
        logits = _logits(network, torch.zeros(1, *_shape(data)), data)
    if not isinstance(logits, Tensor) or logits.shape != (1, data.num_classes):
        shape = tuple(logits.shape[1:]) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"{name} gives {shape} for a picture: {data.name} needs {data.num_classes} logits")


@torch.no_grad()
def warn_of_softmax(network: nn.Module, data: ImageData) -> None:
    """Prints a warning if the outputs of a network are probabilities. Then the loss applies softmax a second time."""
    outputs = _logits(network, dry_pictures(network, _shape(data), 2), data).float().cpu()
    if data.num_classes > 1 and bool((outputs >= 0).all()) and torch.allclose(outputs.sum(1), torch.ones(2), atol=1e-4):
        last = [n for n, m in network.named_modules() if isinstance(m, nn.Softmax)]
        where = f" (its module {last[-1]})" if last else ""
        say(f"{type(network).__name__} ends in softmax{where}: the losses expect logits, and it will train badly")


def half_precision_is_slow() -> bool:
    """Whether torch has no fast kernels for half precision on this CPU: one of Intel or AMD without AVX-512."""
    of_intel = platform.machine().lower() in ("x86_64", "amd64")
    return of_intel and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")


def warn_of_slow_precision(precision: str, device: str) -> None:
    """Prints a warning if a run would take many times as long as in float32.

    Args:
        precision: that of the trainer, such as "bf16-mixed".
        device: the type of the device.
    """
    if device == "cpu" and "16" in precision and half_precision_is_slow():
        say(f"{precision} is many times slower on this CPU, which has no AVX-512: give --trainer.precision 32-true")


def warn_of_other_activations(network: nn.Module, make: Callable[[], nn.Module], data: ImageData) -> None:
    """Prints a warning if a network calls activations as functions, which cannot be replaced."""
    training = network.training
    pictures = torch.zeros(1, *_shape(data)).to(*input_type(network))
    others = other_activations(network.eval(), make, pictures)
    network.train(training)
    if others:
        calls = ", ".join(f"{name} {count} times" for name, count in others.items())
        say(f"activation: {type(network).__name__} calls {calls} as a function, which stays")


def refuse_untrainable(method: nn.Module, network: nn.Module) -> None:
    """Checks that there is something to train.

    Raises:
        InputError: the network has no parameters, or nothing in the method requires a gradient.
    """
    name = type(network).__name__
    if not any(True for _ in network.parameters()):
        raise InputError(f"{name} has no parameters: there is nothing to train")
    if not any(p.requires_grad for p in method.parameters()):
        raise InputError(f"all parameters of {name} are frozen (requires_grad is false): there is nothing to train")


def refuse_unlike_batch_norms(module: nn.Module) -> None:
    """Checks that sync_batchnorm changes no batch norm that does more than that: it would put torch's own in its place,
    as of those of timm that hold an activation, too.

    Raises:
        InputError: there is one.
    """
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and type(layer) not in plain:
            raise InputError(
                f"trainer.sync_batchnorm would replace {name}, a {type(layer).__name__}, by a plain batch norm: "
                "leave it out"
            )


def refuse_small_auxiliary(network: nn.Module, data: ImageData) -> None:
    """Checks that the auxiliary classifiers of a network, which it uses in training only, can take the pictures.

    Raises:
        InputError: they cannot.
    """
    if not auxiliary_weight(network):
        return
    copied = copy.deepcopy(network).train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copied(torch.zeros(2, *_shape(data)).to(*input_type(network)))
    except Exception as error:
        size = data.image_size
        raise InputError(
            f"the auxiliary classifiers of {type(network).__name__} cannot take pictures of {size}x{size}: give larger "
            "ones (data.image_size), or network.aux_logits false"
        ) from error


def _shape(data: ImageData) -> tuple[int, int, int]:
    return data.channels, data.image_size, data.image_size


def _logits(network: nn.Module, pictures: Tensor, data: ImageData) -> Any:
    """What a network in eval mode gives for pictures of the shape of the data. Its mode stays as it is."""
    training = network.training
    try:
        return main_output(network.eval()(pictures.to(*input_type(network))))
    except InputError:
        raise
    except Exception as error:
        size, reason = "x".join(map(str, _shape(data))), (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{type(network).__name__} cannot take pictures of {size} from {data.name}; give a network that can: "
            f"{reason[:100]}"
        ) from error
    finally:
        network.train(training)


def refuse_small_batches(network: nn.Module, data: ImageData, world: int, needs_two: str | None) -> None:
    """Checks that each process gets at least 2 new samples in each training batch, where something needs them.

    Args:
        network: the network; batch norm needs 2 samples.
        data: the data; after ``setup``.
        world: the number of processes.
        needs_two: the name of a method that needs 2 samples whatever the network is; None for other methods.

    Raises:
        InputError: there is a batch with a single sample.
    """
    rows, rest = data.batch_size // world, len(data.training_split) % data.batch_size
    smallest = min(rows, max(rest // world, 1)) if data.keep_last and rest else rows
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    what = "batch norm" if norms else needs_two
    if smallest < 2 and what is not None:
        raise InputError(
            f"{what} needs 2 samples per process in each batch, there is only {smallest}: make batch_size larger"
        )


def depends_on_process_count(module: nn.Module, synchronised: bool) -> str | None:
    """The name of a layer type in a module whose results depend on the number of processes; None if there is none.

    Args:
        module: the method, with all modules that are trained.
        synchronised: whether batch norm is synchronised over all processes.
    """
    modules = list(module.modules())
    if not synchronised and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules):
        return "batch norm"
    if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in modules):
        return "dropout"
    if any(isinstance(m, StochasticDepth) and m.p > 0 for m in modules):
        return "stochastic depth"
    return None


def refuse_cuda_graphs(device: str, accumulated: int) -> None:
    """Checks that a network can be trained as CUDA graphs.

    Args:
        device: the type of the device, as "cuda".
        accumulated: the number of batches whose gradients are added up.

    Raises:
        InputError: it cannot.
    """
    if device != "cuda":
        raise InputError(f"model.cuda_graphs needs a GPU, and the device is {device}: give model.compile instead")
    if accumulated > 1:  # the next forward pass may overwrite gradients that lie in the memory of the graphs
        raise InputError("model.cuda_graphs cannot add up gradients: leave trainer.accumulate_grad_batches out")


def refuse_empty_epochs(trainer: pl.Trainer, batches: int, trained: int) -> None:
    """Checks that an epoch reaches a batch to train on, and the validation within it.

    Args:
        trainer: the trainer of the fit.
        batches: the number of training batches of the data; 0 is left to the check of the batch size.
        trained: the number of them in an epoch.

    Raises:
        InputError: it does not.
    """
    refuse_none_left(batches, trainer.limit_train_batches, "trainer.limit_train_batches")
    every = getattr(trainer, "val_check_interval", None)  # an interval of time is kept elsewhere
    if trained and isinstance(every, int) and every > trained and trainer.check_val_every_n_epoch is not None:
        raise InputError(
            f"trainer.val_check_interval is {every}, but an epoch has {trained} batches: give fewer, or "
            "trainer.check_val_every_n_epoch null, which counts batches over epochs"
        )
    seldom, epochs = trainer.check_val_every_n_epoch or 0, trainer.max_epochs or 0
    if seldom > epochs and trainer.limit_val_batches:
        say(f"trainer.check_val_every_n_epoch is {seldom} and trainer.max_epochs {epochs}: nothing is validated")
