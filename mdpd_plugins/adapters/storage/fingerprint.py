"""A fingerprint of weights: whether two models hold the same numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of a state dict: of every name, dtype, shape and bit, in the order of names; hexadecimal digits.

    Args:
        state: tensors of any dtype, on any device. They are read one at a time, so little memory is needed.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes: NumPy does not know every dtype of PyTorch.
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


__all__ = ["fingerprint"]
