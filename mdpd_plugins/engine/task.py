"""What the engine needs to know of a task. The tasks package implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.engine.settings import Settings


class Task(Protocol):
    """A head's size, a loss, and the logits distillation that fits it."""

    num_outputs: int
    """Outputs that the backbone is built with; a language model keeps those it has."""
    kind: str
    """Kind of label: "single", "multi", "float", "pair" or "language"."""
    classes: tuple[str, ...]
    """Names of the outputs, in order; empty where they have none."""
    coupled: bool
    """Whether a sample's loss depends on the others of its batch."""
    causal: bool
    """Whether the side network must not see, at any token, those that come after."""

    def side_head(self, widths: Sequence[int], adapter: Adapter) -> nn.Module:
        """The side network's head: called with the last tokens (B, T, D_S) and masks (B, T) of each tower.

        Args:
            widths: D_S of each tower's ladder. adapter: the backbone that the head stands beside.
        """

    def check_labels(self, labels: torch.Tensor, batch: int) -> None:
        """Raise DataError unless these are labels of `batch` samples."""

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Scalar task loss of logits (B, ...)."""

    def distillation(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, settings: Settings
    ) -> torch.Tensor:
        """Scalar logits distillation loss; the teacher carries no gradient."""

    def scored(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(B, ...): what the metric needs of each sample; the logits themselves, unless they are large."""

    def metrics(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Metrics over a whole evaluation set of what `scored` returned, (N, ...)."""


@runtime_checkable
class CoachedTask(Task, Protocol):
    """A task whose samples a coach can teach one by one, also without their labels."""

    def coaching(self, student: torch.Tensor, teacher: torch.Tensor, settings: Settings) -> torch.Tensor:
        """(B,): how far each sample's outputs (B, C) are from a coach's, whatever its label."""

    def certainty(self, outputs: torch.Tensor) -> torch.Tensor:
        """(B,): how sure outputs (B, C) are, as the probability of their answer; 1 where there is none."""


__all__ = ["CoachedTask", "Task"]
