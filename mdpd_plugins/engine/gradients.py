"""What the engine asks of whoever trains: take a loss's gradient, hear that a batch has ended, drop a failed step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from mmengine.dist import all_reduce_params, is_distributed
from torch import nn

Backward = Callable[[torch.Tensor], object]


class Gradients(Protocol):
    """Where gradients go. A path is "side" or "backbone".

    A batch's loss comes in parts, whose gradients add up. The engine never touches an optimiser: whoever implements
    this, or calls `Distiller.backward`, steps it.

    Attributes:
        scaled: gradients are scaled for float16, and whoever scales them leaves out steps in which they overflowed.
    """

    @property
    def scaled(self) -> bool: ...

    def backward(self, path: str, loss: torch.Tensor) -> None:
        """Add the gradient of a part of a batch's loss to the parameters of `path`."""

    def end_batch(self, paths: Sequence[str]) -> None:
        """All parts of a batch have been differentiated; `paths` are those that got gradients."""

    def discard(self) -> None:
        """A loss was not finite: drop every gradient that waits for a step."""


class PlainGradients:
    """Plain PyTorch: ``loss.backward()``, averaged over processes where there are several.

    Args:
        parameters: path -> what it trains.
        backward: instead of ``torch.Tensor.backward``: what a GradScaler, Accelerate or Fabric has, which may scale.
    """

    def __init__(self, parameters: Mapping[str, Iterable[nn.Parameter]], backward: Backward | None = None):
        self.parameters = {path: list(own) for path, own in parameters.items()}
        self._backward: Backward = backward or torch.Tensor.backward
        self.scaled = backward is not None

    def backward(self, path: str, loss: torch.Tensor) -> None:
        """Add the gradient of a part of a batch's loss."""
        self._backward(loss)

    def end_batch(self, paths: Sequence[str]) -> None:
        """Average the gradients over processes."""
        average_over_processes(p for path in paths for p in self.parameters[path])

    def discard(self) -> None:
        """Drop all gradients."""
        for own in self.parameters.values():
            for p in own:
                p.grad = None


def average_over_processes(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes; alone, nothing happens. Every process must ask.

    Which parameters have one depends on settings and step alone, so it is the same list everywhere. DDP's reducer
    cannot follow a phase that runs at some steps only, so the model is not wrapped.
    """
    if is_distributed():
        all_reduce_params([p.grad for p in parameters if p.grad is not None], coalesce=True, op="mean")


def not_finite(parameters: Iterable[nn.Parameter]) -> nn.Parameter | None:
    """A parameter whose gradient holds NaN or infinity; None if there is none.

    One look for all of them, since each is a wait for the device. By the largest absolute value: a sum of squares would
    overflow where every gradient is finite.
    """
    found = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in found if p.grad is not None]
    if not found or torch.nn.utils.get_total_norm(gradients, float("inf")).isfinite():
        return None
    return next((p for p, gradient in zip(found, gradients, strict=True) if not gradient.isfinite().all()), None)


__all__ = ["Backward", "Gradients", "PlainGradients", "average_over_processes", "not_finite"]
