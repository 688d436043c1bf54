"""Features of networks of this program and of others: where they are, their shapes, and what would be wrong values."""

import pytest
import torch
from torch import nn
from torchvision import models

from distill_lightning.errors import InputError
from distill_lightning.features import Features, channels_last, layer_shapes, stage_ends
from distill_lightning.models import (
    VGG16,
    ConvNet,
    LeNet300100,
    ResNet8x4,
    ResNet18,
    ResNet20,
    SmallDenseNet,
    WideResNet,
)

RGB = (3, 32, 32)


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (ResNet20, [(16, 32, 32), (32, 16, 16), (64, 8, 8)]),
        (ResNet8x4, [(64, 32, 32), (128, 16, 16), (256, 8, 8)]),
        (ResNet18, [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]),
        (lambda: models.resnet18(num_classes=10), [(64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)]),
        (VGG16, [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)]),
        (lambda: WideResNet(depth=16, widen=2), [(32, 32, 32), (64, 16, 16), (128, 8, 8)]),
        (lambda: SmallDenseNet(depth=10), [(40, 32, 32), (64, 16, 16), (88, 8, 8)]),
    ],
)
def test_the_ends_of_stages(make, shapes):
    network = make()
    assert layer_shapes(network, stage_ends(network), RGB) == shapes
    assert layer_shapes(network, ["stage2", "last_stage", "pooled"], RGB) == [shapes[1], shapes[-1], shapes[-1][:1]]
    assert not any(module._forward_hooks for module in network.modules())
    assert network.training


def test_the_stages_of_timm():
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet18", num_classes=10)
    assert stage_ends(network)[-4:] == ["layer1", "layer2", "layer3", "layer4"]
    assert layer_shapes(network, ["last_stage", "pooled"], RGB) == [(512, 1, 1), (512,)]


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("stages.11", "ResNet20 has no layer stages.11; did you mean stages.1"),
        ("stage4", "ResNet20 has no stage4: it has 3 stages"),
        ("stem.1", "the output of stem.1 of ResNet20 is changed in place by a later layer"),
        ("stages.1.0.bn2", "the output of stages.1.0.bn2 of ResNet20 is changed in place"),
    ],
)
def test_layers_that_cannot_be_read(layer, words):
    with pytest.raises(InputError, match=words) as error:
        layer_shapes(ResNet20(), [layer], RGB)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_networks_without_stages_or_without_a_use_for_a_layer():
    with pytest.raises(InputError, match="LeNet300100 names no stages: give layers by their paths: "):
        layer_shapes(LeNet300100(image_size=8), ["last_stage"], (1, 8, 8))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    network[1].unused = nn.Linear(3, 3)
    with pytest.raises(InputError, match=r"1\.unused of Sequential gives no tensor"):
        layer_shapes(network, ["1.unused"], (1, 8, 8))


def test_the_first_batch_norm_of_an_in_place_relu_is_what_a_hook_would_get_wrong():
    """The trap itself: without the check, the hook hands out values after the ReLU."""
    network = ResNet20().eval()
    before: list[torch.Tensor] = []
    network.stem[1].register_forward_hook(lambda module, inputs, output: before.append(output.clone()))
    features = Features(network, ["stem.1"], in_eval=True)
    network(torch.randn(2, *RGB))
    (held,) = features.take()
    assert held.min() == 0 > before[0].min()


def test_validation_holds_nothing_and_a_teacher_in_eval_mode_does():
    network, pictures = ConvNet(), torch.randn(2, 1, 8, 8)
    features, of_teacher = Features(network, ["stage1", "pooled"]), Features(network, ["stage1"], in_eval=True)
    with torch.no_grad():
        network.eval()(pictures)
    assert of_teacher.take()[0].shape == (2, 16, 8, 8)
    with pytest.raises(RuntimeError, match="no batch has passed"):
        features.take()
    network.train()(pictures)
    first, pooled = features.take()
    assert first.requires_grad and pooled.shape == (2, 64)
    features.remove()
    network(pictures)
    with pytest.raises(RuntimeError):
        features.take()


def test_hooks_are_right_under_compile():
    torch._dynamo.reset()
    network = ConvNet()
    features = Features(network, ["stage2", "pooled"])
    pictures = torch.randn(4, 1, 8, 8)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        gradients = []
        for call in (network, compiled):
            network.zero_grad()
            call(pictures)
            (held, pooled) = features.take()
            (held.square().sum() + pooled.sum()).backward()
            gradients.append([held.detach(), pooled.detach(), *(p.grad for p in list(network.parameters())[:4])])
        assert all(torch.allclose(a, b, atol=2e-5) for a, b in zip(*gradients, strict=True))


def small_swin() -> nn.Module:
    return models.SwinTransformer([2, 2], 8, [1, 1], [1, 1], [2, 2], num_classes=10)


@pytest.mark.parametrize(
    ("make", "layers", "last"),
    [
        (small_swin, ["features.0", "features.1", "features.2", "features.3", "norm"], True),
        (small_swin, ["permute", "pooled"], False),
        (lambda: models.convnext_tiny(num_classes=10), ["features.0", "features.1", "features.2", "features.7"], False),
        (ResNet20, ["stage1", "last_stage"], False),
    ],
)
def test_channels_that_are_last(make, layers, last):
    network = make()
    assert [channels_last(network, layer, RGB) for layer in layers] == [last] * len(layers)


def test_maps_have_their_channels_first():
    network, picture = small_swin(), torch.randn(2, *RGB)
    layers = ["features.1", "norm", "permute"]
    assert layer_shapes(network, layers, RGB) == [(8, 16, 16), (16, 8, 8), (16, 8, 8)]
    held = []
    network.features[1].register_forward_hook(lambda module, inputs, output: held.append(output))
    features = Features(network, layers, shape=RGB)
    network(picture)
    first, norm, permuted = features.take()
    assert first.equal(held[-1].permute(0, 3, 1, 2)) and norm.equal(permuted)
