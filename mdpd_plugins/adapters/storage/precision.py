"""Types that weights are held in: the checkpoint's own, or one that was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import nn

from mdpd_plugins.registry.errors import ConfigError, closest

AUTO = "auto"
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CHOICES = (AUTO, *TYPES)


def chosen_type(dtype: str) -> torch.dtype | None:
    """The type that `backbone.dtype` names; None for "auto", the checkpoint's own.

    Raises:
        ConfigError: another word.
    """
    if dtype == AUTO:
        return None
    if dtype not in TYPES:
        raise ConfigError(f"backbone.dtype={dtype!r} does not exist: {closest(str(dtype), CHOICES)}")
    return TYPES[dtype]


def stored_type(tensors: Iterable[torch.Tensor]) -> torch.dtype | None:
    """The type of a checkpoint's floating tensors; the narrowest that holds all of them, if they differ.

    None if there is none, or it is a type that no weights are trained in: then they are held as float32.
    """
    return common_type({t.dtype for t in tensors if t.is_floating_point()})


def common_type(found: Iterable[torch.dtype]) -> torch.dtype | None:
    """The narrowest of `TYPES` that holds all of these."""
    found = set(found)
    both = reduce(torch.promote_types, found) if found else None
    return both if both in TYPES.values() else None


def weight_type(model: nn.Module, prefixes: tuple[str, ...] = ("",)) -> torch.dtype:
    """The type of a model's weights, which floating inputs are cast to: that of its first, as transformers has it."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and name.startswith(prefixes):
            return parameter.dtype
    return torch.float32


def cast(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Put all floating weights of a model into one type, in place; None changes nothing.

    Buffers that are in no checkpoint stay: they are constants, such as the mean that pictures are normalised with.
    """
    if dtype is None:
        return
    constants = [(m, name, m._buffers[name]) for m in model.modules() for name in m._non_persistent_buffers_set]
    model.to(dtype)
    for module, name, buffer in constants:
        module._buffers[name] = buffer


__all__ = ["AUTO", "CHOICES", "TYPES", "cast", "chosen_type", "common_type", "stored_type", "weight_type"]
