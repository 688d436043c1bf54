"""Receptive fields: against values that were computed by hand, and against what really changes."""

import pytest
import torch
from features_of import last_channels
from torch import nn

from distill_lightning.channels.field import receptive_field
from distill_lightning.channels.taps import Tap
from distill_lightning.errors import InputError
from distill_lightning.models.fully_connected import FullyConnected
from distill_lightning.models.resnet import ResNet20


def field_of(network: nn.Module, layer: str, shape: tuple[int, int, int]) -> torch.Tensor:
    return receptive_field(Tap(network, layer, torch.zeros(1, *shape)), shape)


def test_a_small_network_by_hand():
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),  # cell i sees i - 1 to i + 1
        nn.ReLU(),
        nn.MaxPool2d(2),  # cell i sees 2i - 1 to 2i + 2
        nn.Conv2d(3, 2, 5, stride=2, padding=2),  # cell i sees pooled cells 2i - 2 to 2i + 2: 4i - 5 to 4i + 6
        nn.Flatten(),
        nn.Linear(2 * 3 * 2, 4),
    )
    with torch.no_grad():
        network[0].weight[:, :, 0] = 0  # a weight may be 0: the pixel could still matter after another step
        network[0].bias.fill_(-100)  # and all units may be off
    field = field_of(network, "3", (1, 12, 8))
    assert field.shape == (3, 2, 4)
    rows = [(max(0, 4 * i - 5), min(11, 4 * i + 6)) for i in range(3)]
    columns = [(max(0, 4 * i - 5), min(7, 4 * i + 6)) for i in range(2)]
    assert field.tolist() == [[[*row, *column] for column in columns] for row in rows]
    assert field_of(network, "2", (1, 12, 8))[2, 1].tolist() == [3, 6, 1, 4]
    assert field_of(network, "5", (1, 12, 8)).tolist() == [[[0, 11, 0, 7]]]


@pytest.mark.parametrize(
    ("layer", "size", "stride"), [("stem", 3, 1), ("stage1", 15, 1), ("stage2", 37, 2), ("stage3", 81, 4)]
)
def test_resnet20_has_the_known_sizes(layer, size, stride):
    """By the rule r + (k - 1) j along the longest path: 3, 15, 37 and 81 pixels (Araujo, Norris & Sim 2019)."""
    field = field_of(ResNet20(10), layer, (3, 97, 4))
    middle = field.shape[0] // 2
    first, last = field[middle, 0, :2].tolist()
    assert last - first + 1 == size
    assert (first + last) / 2 == middle * stride  # the centre of the cell


def test_the_last_stage_sees_all_of_a_small_picture():
    field = field_of(ResNet20(10), "stage3", (3, 32, 32))
    assert field[4, 4].tolist() == [0, 31, 0, 31]  # centre 16, rows -24 to 56, cut off at the border


def test_a_pixel_outside_changes_nothing_and_one_inside_may():
    torch.manual_seed(0)
    network = ResNet20(10)
    tap = Tap(network, "stage1", torch.zeros(1, 3, 32, 32))
    top, bottom, left, right = receptive_field(tap, (3, 32, 32))[20, 16].tolist()
    assert (top, bottom, left, right) == (13, 27, 9, 23)
    picture = torch.randn(1, 3, 32, 32)
    before = tap(picture)[0, :, 20, 16]
    outside = torch.randn(1, 3, 32, 32)
    outside[:, :, top : bottom + 1, left : right + 1] = picture[:, :, top : bottom + 1, left : right + 1]
    assert torch.allclose(tap(outside)[0, :, 20, 16], before, atol=1e-6)
    inside = picture.clone()
    inside[:, :, top, left] += 50
    assert not torch.allclose(tap(inside)[0, :, 20, 16], before, atol=1e-6)


def test_what_averages_over_the_picture_sees_all_of_it():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert field_of(network, "0", (1, 8, 8))[4, 4].tolist() == [3, 5, 3, 5]
    assert field_of(network, "1", (1, 8, 8))[4, 4].tolist() == [0, 7, 0, 7]


class Tokens(nn.Module):
    """Patches of 4 pixels as tokens (B, N, C), then attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.tokens = nn.Identity()
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        tokens = self.tokens(self.patches(images).flatten(2).transpose(1, 2))
        return self.head(self.attention(tokens).mean(1))


def test_tokens_are_rows_of_a_map():
    network = Tokens()
    field = field_of(network, "tokens", (1, 8, 8))
    assert field.squeeze(1).tolist() == [[0, 3, 0, 3], [0, 3, 4, 7], [4, 7, 0, 3], [4, 7, 4, 7]]
    assert field_of(network, "attention", (1, 8, 8)).view(-1, 4).tolist() == [[0, 7, 0, 7]] * 4


class Reused(nn.Module):
    """One in-place ReLU for two convolutions, as in torchvision's blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.unused = nn.Conv2d(4, 4, 3)

    def forward(self, images):
        return self.relu(self.second(self.relu(self.first(images)))).mean((2, 3))


def test_channels_that_are_last_are_channels():
    network, picture = last_channels().eval(), torch.randn(2, 1, 8, 8)
    tap = Tap(network, "2", picture[:1])
    assert tap.shape == (6, 4, 4)
    assert torch.equal(tap(picture), network[:4](picture))  # module 3 puts them first
    field = field_of(network, "2", (1, 8, 8))
    assert torch.equal(field, field_of(network, "0", (1, 8, 8)))


def test_taps_refuse_and_clean_up():
    network, picture = Reused(), torch.randn(2, 1, 8, 8)
    for layer, words in {
        "relu": "used 2 times",
        "unused": "not used",
        "secnd": "did you mean second",
        "qqqqqqqqq": "it has first, second, relu",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            Tap(network, layer, picture[:1])
        assert len(str(caught.value)) < 200
    # the output of the convolution itself, not what the in-place ReLU makes of it
    assert torch.equal(Tap(network, "first", picture[:1])(picture), network.first(picture))
    assert Tap(network, "first", picture[:1])(picture).min() < 0
    assert not any(module._forward_hooks for module in network.modules())
    dense = FullyConnected(10, 1, 8, (6,))
    assert Tap(dense, "pooled", picture[:1])(picture).shape == (2, 6, 1, 1)
