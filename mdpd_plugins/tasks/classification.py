"""Prediction tasks: one label, several labels, or a number per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.towers.fusion import Fusion, ProjectedFusion
from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.logits_distillation import bce, chosen_teacher, kl, kl_rows, mse, nkd
from mdpd_plugins.engine.side import PooledHead
from mdpd_plugins.registry.errors import ConfigError, DataError, closest
from mdpd_plugins.tasks.scores import metric_names, numbers, several_labels, single_label

KINDS = ("single", "multi", "float")


class Prediction:
    """Loss, logits distillation and metrics of one kind of label.

    Args:
        kind: "single" (cross-entropy), "multi" (binary cross-entropy per class) or "float" (squared error).
        classes: class names; for "float", one name per output.
        metric: the metric by which this data is usually judged, as `main_metric`; by default accuracy, micro_f1 or
            pearson.

    Raises:
        ConfigError: an unknown kind, fewer than two classes for "single", or a metric that this kind does not have.
    """

    coupled = False
    causal = False

    def __init__(self, kind: str, classes: Sequence[str], metric: str | None = None):
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
        names = metric_names(kind, self.num_outputs)
        if metric is not None and metric not in names:
            raise ConfigError(f"metric {metric!r} is none of this data's: {closest(metric, names)}")
        self.main_metric = metric or names[0]

    def fusion(self, width: int) -> nn.Module:
        """What joins a pair of towers of `width` outputs each (visual question answering)."""
        return Fusion(width, self.num_outputs)

    def side_head(self, widths: Sequence[int], adapter: Adapter) -> nn.Module:
        """A linear layer on the mean token; of two towers, a fusion of theirs."""
        if len(widths) == 1:
            return PooledHead(nn.Linear(widths[0], self.num_outputs))
        return PooledHead(ProjectedFusion(widths, self.num_outputs))

    def scored(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The logits (B, C)."""
        return logits

    def check_labels(self, labels: torch.Tensor, batch: int) -> None:
        """Raise DataError unless labels fit: (B,) int64 below C, (B, C) of zeros and ones, or (B,) numbers."""
        wanted = (batch, self.num_outputs) if self.kind == "multi" else (batch,)
        if tuple(labels.shape) != wanted:
            raise DataError(
                f"labels of shape {tuple(labels.shape)} were given, and {wanted} is needed for {self.kind!r}"
            )
        if self.kind != "single":
            return
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise DataError(f"labels of type {labels.dtype} were given, and class indices (torch.int64) are needed")
        low, high = (int(v) for v in labels.aminmax())
        if low < 0 or high >= self.num_outputs:
            raise DataError(
                f"labels from {low} to {high} were given, but the output layer has {self.num_outputs} classes: give "
                f"class indices from 0 to {self.num_outputs - 1}, or an output layer for more classes"
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
        teacher = chosen_teacher(student, teacher, settings.teacher)
        if self.kind == "multi":
            return bce(student, teacher)
        if self.kind == "float":
            return mse(student, teacher)
        if self.num_outputs == 2:
            return kl(student, teacher, settings.kl_temperature)
        return nkd(student, teacher, labels, settings.nkd_gamma, settings.nkd_tau)

    def coaching(self, student: torch.Tensor, teacher: torch.Tensor, settings: Settings) -> torch.Tensor:
        """(B,): temperature-scaled KL, BCE over the labels, or squared error, of outputs (B, C)."""
        if self.kind == "multi":
            return F.binary_cross_entropy_with_logits(student, teacher.sigmoid(), reduction="none").mean(1)
        if self.kind == "float":
            return (student - teacher).square().mean(1)
        return kl_rows(student, teacher, settings.kl_temperature)

    def certainty(self, outputs: torch.Tensor) -> torch.Tensor:
        """(B,): probability of the likeliest class, or of the least sure of several labels; 1 for numbers."""
        if self.kind == "single":
            return outputs.softmax(1).amax(1)
        if self.kind == "multi":
            return outputs.abs().sigmoid().amin(1)
        return outputs.new_ones(len(outputs))

    def metrics(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Metrics over a whole evaluation set, logits (N, C); see `scores` for each kind's."""
        compute = {"single": single_label, "multi": several_labels, "float": numbers}[self.kind]
        return compute(logits, labels)


__all__ = ["KINDS", "Prediction"]
