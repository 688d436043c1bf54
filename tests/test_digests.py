"""Digests of tensors."""

import pytest
import torch

from distill_lightning.digests import tensors_digest


def test_a_digest_sees_every_bit():
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.long)}
    others = [
        weights | {"a": weights["a"] + 1e-3},
        weights | {"a": weights["a"].reshape(3, 2)},
        weights | {"b": weights["b"].int()},
        {"c": weights["a"], "b": weights["b"]},
    ]
    digests = {tensors_digest(w) for w in [weights, *others]}
    assert len(digests) == 5
    assert tensors_digest(dict(reversed(weights.items()))) == tensors_digest(weights)


def test_how_a_tensor_lies_in_memory_does_not_matter():
    tensor = torch.arange(6.0).reshape(2, 3)
    assert tensors_digest({"a": tensor.T.contiguous().T}) == tensors_digest({"a": tensor})
    assert tensors_digest({"a": tensor.requires_grad_()}) == tensors_digest({"a": tensor.detach()})


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.int32])
def test_any_type_has_one(dtype):
    zeros, ones = ({"a": torch.full((3,), value, dtype=dtype)} for value in (0, 1))
    assert tensors_digest(zeros) != tensors_digest(ones)
    assert len(tensors_digest(zeros)) == 20
    assert tensors_digest({"a": torch.empty(0, dtype=dtype)}) != tensors_digest({})


def test_a_digest_never_changes():
    """Checkpoints and tables of soft targets hold it."""
    assert tensors_digest({"a": torch.arange(3)}) == "79fe420bbd66187cf2e8"
