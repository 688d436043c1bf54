"""The strongest pictures of channels, dead and duplicate channels, occlusion, halves."""

import pytest
import torch
from torch import nn

from distill_lightning.channels.halves import compare_halves
from distill_lightning.channels.occlusion import occlusion_map, square_of
from distill_lightning.channels.scan import Scan, scan
from distill_lightning.channels.taps import Tap


def tap_of(weights: torch.Tensor) -> Tap:
    """A network with one convolution of 1 x 1 and a ReLU: channel c is max(0, w_c x)."""
    conv = nn.Conv2d(1, len(weights), 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(weights.view(-1, 1, 1, 1))
    return Tap(nn.Sequential(conv, nn.ReLU()), "1", torch.zeros(1, 1, 6, 6))


def pictures(count: int = 30) -> torch.Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_the_strongest_pictures_and_their_places():
    images = pictures()
    images[7, 0, 2, 4] = 5.0
    images[9, 0, 0, 0] = 9.0  # on the rim: counted, but not searched
    images[3] = images[5]  # equal pictures: the first one comes first
    images[[3, 5], 0, 3, 3] = 4.0
    found = scan(tap_of(torch.tensor([1.0, -1.0, 0.5])), [images])
    assert found.strongest(0, 3) == [7, 3, 5]
    assert divmod(int(found.places[7, 0]), 6) == (2, 4)
    assert float(found.largest[0]) == 9.0 and float(found.maxima[9, 0]) < 1
    inner = images[:, 0, 1:-1, 1:-1].flatten(1).amax(1)
    assert torch.equal(found.maxima[:, 0], inner)
    assert float(found.rim[0]) == pytest.approx(float((images.flatten(1).amax(1) > inner).double().mean()))


def test_the_size_of_the_batches_does_not_matter():
    tap, images = tap_of(torch.tensor([1.0, -1.0, 0.5])), pictures()
    whole, parts = scan(tap, [images]), scan(tap, images.split(7))
    for name in ("maxima", "places", "means", "largest", "smallest", "rim"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name


def test_dead_and_duplicate_channels_are_counted():
    found = scan(tap_of(torch.tensor([1.0, -1.0, 2.0, 0.0, 3.0])), [pictures()])
    assert found.dead.tolist() == [False, True, False, True, False]
    assert found.duplicates.tolist() == [-1, -1, 0, -1, 0]
    maxima = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) + 5
    maxima[:, 1] = maxima[:, 0] + 0.2 * maxima[:, 2]  # a correlation of .98
    maxima[:, 2] += 0.0
    other = Scan(maxima, maxima.long(), maxima, maxima.amax(0), maxima.amin(0), maxima[0] * 0)
    assert other.duplicates.tolist() == [-1, 0, -1]


def test_channels_by_class():
    labels = torch.tensor([0, 0, 1, 1])
    maxima = torch.tensor([[3.0, 1.0], [3.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    found = Scan(maxima, maxima.long(), maxima, maxima.amax(0), torch.tensor([0.0, 1.0]), maxima[0] * 0)
    # the first channel is one standard deviation above its mean for class 0; the second is always the same: dead
    assert found.by_class(labels, 3).tolist() == [[1, 0], [-1, 0], [0, 0]]
    assert found.classes_of_strongest(0, labels, 3).tolist() == [2, 2, 0]


def test_occlusion_finds_the_part_that_matters():
    picture = torch.zeros(1, 32, 32, dtype=torch.uint8)
    picture[0, 20, 6] = 255

    def answer(images: torch.Tensor) -> torch.Tensor:
        return images[:, 0].flatten(1).amax(1).float()

    assert square_of(32) == (8, 2)
    found = occlusion_map(answer, picture, torch.tensor([10], dtype=torch.uint8))
    assert found.shape == (13, 13)
    covers = torch.zeros(13, 13, dtype=torch.bool)  # squares 2i to 2i + 7 that hold row 20 and column 6
    covers[7:11, 0:4] = True
    assert torch.equal(found == 245, covers) and bool((found[~covers] == 0).all())


def two_views(count: int, separate: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of 10 classes with two views each, of which three pictures in ten show only one.

    Each view has a channel of its own, 20 channels; or all channels are a random rotation of them, a mere code.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (count,), generator=generator)
    single = torch.rand(count, generator=generator) < 0.3
    which = torch.randint(2, (count,), generator=generator)
    features = 0.1 * torch.randn(count, 20, generator=generator)
    for view in (0, 1):
        features[torch.arange(count), 2 * labels + view] += (~single | (which == view)).float()
    rotation = torch.linalg.qr(torch.randn(20, 20, generator=generator)).Q
    return features if separate else features @ rotation, labels


def test_views_in_channels_of_their_own_are_told_from_a_mere_code():
    separate, mixed = (compare_halves(*two_views(3000, kind), 10) for kind in (True, False))
    assert separate is not None and mixed is not None
    assert separate.whole > 0.98 and mixed.whole > 0.98
    assert int(separate.split_classes().sum()) >= 9 and int(mixed.split_classes().sum()) <= 1
    # halves of channels miss views: they are worse than those of a code, and differ more
    assert float(separate.half[0].mean()) < float(separate.half[1].mean()) - 0.1
    assert float(separate.differ[0].mean()) > float(separate.differ[1].mean()) + 0.2
    again = compare_halves(*two_views(3000, True), 10)
    assert again is not None and torch.equal(again.only_one, separate.only_one)


def test_too_few_channels_or_pictures_give_no_comparison():
    features, labels = two_views(100, True)
    assert compare_halves(features[:, :3], labels, 10) is None
    assert compare_halves(features[:35], labels[:35], 10) is None
