"""Published data sets of some of their classes."""

import pytest

from distill_lightning.data.torchvision_sets import CIFAR10, MNIST
from distill_lightning.errors import InputError


@pytest.mark.parametrize("made_by", [MNIST, CIFAR10])
def test_some_classes_are_a_data_set_of_their_own(made_by, request):
    root = str(request.getfixturevalue(made_by.__name__.lower()))
    whole, part = made_by(root, val_size=0), made_by(root, classes=[7, "3"], val_size=0)
    assert part.class_names == ["7", "3"] and part.num_classes == 2  # before anything is read
    for name in ("train", "test"):
        (pictures, labels), (found, new) = whole.read(name), part.read(name)
        wanted = [i for i, label in enumerate(labels.tolist()) if label in (3, 7)]
        assert len(wanted) > 2 and found.images.equal(pictures.images[wanted])
        assert new.tolist() == [int(labels[i] == 3) for i in wanted]
    part.setup("fit")
    assert part.info.class_names == ("7", "3") and part.info.num_classes == 2


@pytest.mark.parametrize(
    ("classes", "words"), [(["7"], "two classes or more"), ([7, "7"], "each once"), ([7, "x"], "has no class x")]
)
def test_wrong_classes_are_one_line(classes, words):
    with pytest.raises(InputError, match=words):
        MNIST(classes=classes)
