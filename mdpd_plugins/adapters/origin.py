"""Where a model's weights came from, kept beside the model and not in it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn

RANDOM = "random initialisation"

_ORIGINS: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def record_origin(model: nn.Module, origin: str) -> None:
    """Remember in one phrase where the weights of `model` came from."""
    _ORIGINS[model] = origin


def origin_of(model: nn.Module) -> str:
    """The phrase given to `record_origin`, or "unknown"."""
    return _ORIGINS.get(model, "unknown")


def is_random(model: nn.Module) -> bool:
    """Whether `model` is known to start from random initialisation."""
    return origin_of(model).startswith(RANDOM)


__all__ = ["RANDOM", "is_random", "origin_of", "record_origin"]
