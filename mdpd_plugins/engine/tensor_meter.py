"""Bytes that a piece of work holds, counted tensor by tensor."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorMeter(TorchDispatchMode):
    """Inside, counts the bytes of every tensor storage that operations create, and remembers the peak.

    What existed before (weights, inputs) is not counted, unless an operation allocates it anew. A storage is
    counted once however many views it has, until its last reference dies, wherever that reference is held:
    saved for backward, inside a nested recomputation, in an optimiser, or in a local variable.

    Attributes:
        live: bytes alive now. peak: the most that were alive at once.

    Args:
        ignore: tensors that existed before, whose storages must not be counted if an operation returns them.
    """

    def __init__(self, ignore: Iterable[torch.Tensor] = ()):
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()
        for tensor in ignore:
            self._meet(tensor, counted=False)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # What comes in exists already: a view of it, or an in-place result, is no new storage.
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                self._meet(leaf, counted=False)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._meet(leaf, counted=True)
        return out

    def _meet(self, tensor: torch.Tensor, *, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if counted else 0
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


__all__ = ["TensorMeter"]
