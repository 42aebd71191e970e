"""Prediction tasks: one label, several labels, or a number per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.logits_distillation import bce, kl, mse, nkd
from mdpd_plugins.registry.errors import ConfigError, closest

KINDS = ("single", "multi", "float")


class Prediction:
    """Loss, logits distillation and metrics of one kind of label.

    Args:
        kind: "single" (cross-entropy), "multi" (binary cross-entropy per class) or "float" (squared error).
        classes: class names; for "float", one name per output.

    Raises:
        ConfigError: an unknown kind, or fewer than two classes for "single".
    """

    def __init__(self, kind: str, classes: Sequence[str]):
        if kind not in KINDS:
            raise ConfigError(f"task.kind={kind!r} is not known: {closest(kind, KINDS)}")
        self.kind = kind
        self.classes = tuple(classes) or ("value",)
        self.num_outputs = len(self.classes)
        if kind == "single" and self.num_outputs < 2:
            raise ConfigError(
                f"task.kind='single' needs at least two classes, but the data has {self.num_outputs} "
                f"({', '.join(self.classes)}); use kind='float' for a number"
            )

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Task loss of logits (B, C) against labels (B,) int64, (B, C) float or (B,) float."""
        if self.kind == "single":
            return F.cross_entropy(logits, labels)
        if self.kind == "multi":
            return F.binary_cross_entropy_with_logits(logits, labels.float())
        return F.mse_loss(logits.squeeze(-1), labels.float())

    def distillation(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, settings: Settings
    ) -> torch.Tensor:
        """NKD for three or more classes, temperature-scaled KL for two, BCE for several labels, MSE for numbers."""
        if self.kind == "multi":
            return bce(student, teacher)
        if self.kind == "float":
            return mse(student, teacher)
        if self.num_outputs == 2:
            return kl(student, teacher, settings.kl_temperature)
        return nkd(student, teacher, labels, settings.nkd_gamma, settings.nkd_tau)

    def metrics(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Metrics over a whole evaluation set, logits (N, C).

        single: accuracy. multi: micro F1 at probability 0.5. float: mean squared error and Pearson correlation.
        """
        if self.kind == "single":
            return {"accuracy": (logits.argmax(1) == labels).double().mean().item()}
        if self.kind == "multi":
            chosen, truth = logits > 0, labels > 0.5
            hits = (chosen & truth).sum().item()
            return {"micro_f1": 2 * hits / max(1, int(chosen.sum() + truth.sum()))}
        x, y = logits.squeeze(-1).double(), labels.double()
        centred_x, centred_y = x - x.mean(), y - y.mean()
        norm = (centred_x.norm() * centred_y.norm()).clamp(min=1e-12)
        return {"mse": F.mse_loss(x, y).item(), "pearson": float(centred_x @ centred_y / norm)}


__all__ = ["KINDS", "Prediction"]
