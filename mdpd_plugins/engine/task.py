"""What the engine needs to know of a task. The tasks package implements it."""

from __future__ import annotations

from typing import Protocol

import torch

from mdpd_plugins.engine.settings import Settings


class Task(Protocol):
    """A head's size, a loss, and the logits distillation that fits it."""

    num_outputs: int

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Scalar task loss of logits (B, num_outputs)."""

    def distillation(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, settings: Settings
    ) -> torch.Tensor:
        """Scalar logits distillation loss; the teacher carries no gradient."""


__all__ = ["Task"]
