"""Tensors that have a shape and no numbers, so that a model can be built and trained that does not fit here."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
SEQUENCES = (aten.arange, aten.linspace)
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._unsafe_index, aten._unsafe_index_put)
# Operations that read no more than a tensor's shape and type: how to make what they make, given that shape.
SHAPED: dict[Any, Any] = {
    aten.zeros_like: lambda like, **kw: torch.zeros(like.shape, **kw),
    aten.ones_like: lambda like, **kw: torch.ones(like.shape, **kw),
    aten.full_like: lambda like, value, **kw: torch.full(like.shape, value, **kw),
    aten.new_zeros: lambda like, size, **kw: torch.zeros(size, **kw),
    aten.new_ones: lambda like, size, **kw: torch.ones(size, **kw),
    aten.new_full: lambda like, size, value, **kw: torch.full(size, value, **kw),
}
# What an operation says of numbers that are not there: nothing is out of the ordinary. All are finite, none is
# out of range, whatever is picked by a condition is picked whole, and no two tensors happen to be equal.
ANSWERS = {aten.all: True, aten.any: False, aten.allclose: True, aten.equal: False}


class Imagination(FakeTensorMode):
    """PyTorch's FakeTensorMode, in which small known things stay real.

    Weights, and all that is worked out from them, have shape, type, device and storage size and no numbers. Inputs
    that existed before stay real, and so do scalars, integers, sequences and what is drawn from an explicit
    generator: counters, positions and masks are what they would be, and code that looks at them takes the branch it
    would take. Code that looks at a number that is not there gets an answer from `ANSWERS`, or one.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._in_custom = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        small = not self._in_custom and _small(func, args, kwargs)
        if not any(isinstance(t, FakeTensor) for t in tensors) and (tensors or small):
            return func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in SHAPED and _whole(dtype := kwargs.get("dtype") or tensors[0].dtype):
            return SHAPED[packet](*args, dtype=dtype, device=kwargs.get("device") or tensors[0].device)
        if packet is aten._local_scalar_dense:
            kind = torch.tensor(1, dtype=tensors[0].dtype).item()
            return getattr(tensors[0], "_answer", kind)
        if packet in ANSWERS and func._schema.returns[0].type.kind() == "BoolType":
            return ANSWERS[packet]
        if packet is aten.nonzero:
            return torch.zeros((tensors[0].numel(), tensors[0].dim()), dtype=torch.int64)
        if packet in INDEXING:
            args = (args[0], _positions(args[1], args[0].dim()), *args[2:])
        # A library's own operation says what it makes by making an empty one, which is as large as the real one.
        outer, self._in_custom = self._in_custom, self._in_custom or func.namespace not in ("aten", "prims")
        try:
            out = super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self._in_custom = outer
        if packet in ANSWERS:
            out._answer = ANSWERS[packet]
        return out

    def copied(self, value: Any, modules: Iterable[nn.Module]) -> Any:
        """A deep copy of `value` in which the parameters of `modules` are imagined: no weight is copied."""
        memo: dict[int, Any] = {}
        for parameter in (p for module in modules for p in module.parameters()):
            likeness = self.from_tensor(parameter.detach(), static_shapes=True)
            memo[id(parameter)] = nn.Parameter(likeness, requires_grad=parameter.requires_grad)
        return copy.deepcopy(value, memo)

    def adopt(self, model: nn.Module) -> None:
        """Replace what is real in a model (weights read from a file, scalars) by its imagined likeness."""
        seen: dict[int, nn.Parameter] = {}  # tied weights stay tied
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and not isinstance(parameter, FakeTensor):
                    if id(parameter) not in seen:
                        likeness = self.from_tensor(parameter.detach(), static_shapes=True)
                        seen[id(parameter)] = nn.Parameter(likeness, requires_grad=parameter.requires_grad)
                    module._parameters[name] = seen[id(parameter)]


@contextmanager
def imagined(mode: Imagination) -> Iterator[None]:
    """Inside, new tensors are imagined, and modules of such tensors can be moved and cast."""
    # Whether a model runs at a size is found out by trying, and PyTorch logs a page for each try that does not.
    log = logging.getLogger("torch._subclasses.fake_tensor")
    quiet = patch.object(log, "disabled", True)
    with mode, patch.object(nn.Module, "_apply", _apply), quiet, warnings.catch_warnings():
        # PyTorch looks for numbers where a model is copied, and there are none.
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        yield


def _small(func, args, kwargs) -> bool:
    """Whether an operation that reads no tensor makes something that is kept real."""
    dtype = kwargs.get("dtype")
    return (
        kwargs.get("generator") is not None
        or func.overloadpacket in SEQUENCES
        or (dtype is not None and _whole(dtype))
        or (bool(args) and isinstance(args[0], (list, tuple)) and not args[0])  # a scalar's shape
    )


def _whole(dtype: torch.dtype) -> bool:
    return not dtype.is_floating_point and not dtype.is_complex


def _positions(indices: Any, dim: int) -> list[Any]:
    """Indices with each mask replaced by the positions it picks; how many those are must be known."""
    found: list[Any] = []
    for index in indices:
        if isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8):
            found += list(index.nonzero().unbind(1))
        else:
            found.append(index)
    return found[:dim]


def _apply(self: nn.Module, fn, recurse: bool = True) -> nn.Module:
    # PyTorch's own swaps an imagined tensor's content with the new one's, and refuses if anything refers to it.
    if recurse:
        for child in self.children():
            child._apply(fn)
    with torch.no_grad():
        for name, parameter in self._parameters.items():
            if parameter is not None and (new := fn(parameter)) is not parameter:
                self._parameters[name] = nn.Parameter(new, requires_grad=parameter.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
    return self


__all__ = ["Imagination", "imagined"]
