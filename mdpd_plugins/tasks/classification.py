"""Prediction tasks: one label, several labels, or a number per sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mdpd_plugins.adapters import Adapter
from mdpd_plugins.adapters.towers.fusion import Fusion, ProjectedFusion
from mdpd_plugins.checked import is_number
from mdpd_plugins.engine import Settings
from mdpd_plugins.engine.logits_distillation import bce, chosen_teacher, kl, kl_rows, mse, nkd
from mdpd_plugins.engine.side import PooledHead
from mdpd_plugins.registry.errors import ConfigError, DataError, closest
from mdpd_plugins.tasks.scores import metric_names, numbers, several_labels, single_label

KINDS = ("single", "multi", "float")
SHOWN = 12  # classes that a message lists


class Prediction:
    """Loss, logits distillation and metrics of one kind of label.

    Args:
        kind: "single" (cross-entropy), "multi" (binary cross-entropy per class) or "float" (squared error).
        classes: class names; for "float", one name per output.
        metric: the metric by which this data is usually judged, as `main_metric`; by default accuracy, micro_f1 or
            pearson.
        label_smoothing: share of a label that is spread over all classes (Szegedy et al., arXiv:1512.00567, sec. 7); of
            several labels each, over yes and no.
        class_weights: what the loss of each class's samples is multiplied by; of several labels, each class's loss.

    Raises:
        ConfigError: an unknown kind, fewer than two classes for "single", more than one for "float", a metric that this
            kind does not have, weights that are not one a class, or smoothing or weights for numbers.
    """

    coupled = False
    causal = False

    def __init__(
        self,
        kind: str,
        classes: Sequence[str],
        metric: str | None = None,
        *,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ):
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
        if kind == "float" and self.num_outputs != 1:
            raise ConfigError(
                f"task.kind='float' is one number a sample, and there are {self.num_outputs} outputs: give the model "
                f"one, adapt(model, num_classes=1), or choose another kind of label"
            )
        names = metric_names(kind, self.num_outputs)
        if metric is not None and metric not in names:
            raise ConfigError(f"metric {metric!r} is none of this data's: {closest(metric, names)}")
        self.main_metric = metric or names[0]
        if kind == "float" and (label_smoothing or class_weights is not None):
            raise ConfigError("label smoothing and class weights are for classes, and this data's labels are numbers")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing={label_smoothing!r}: it must be at least 0 and below 1")
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else _weights(class_weights, self.classes)

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
        """Raise DataError unless labels fit: (B,) int64 below C, (B, C) from zero to one, or (B,) numbers.

        For one label also (B, C) shares of each class, as mixup and cutmix make them.
        """
        if self.kind == "single" and labels.dim() == 2:
            _check_shares(labels, (batch, self.num_outputs))
            return
        wanted = (batch, self.num_outputs) if self.kind == "multi" else (batch,)
        if tuple(labels.shape) != wanted:
            raise DataError(
                f"labels of shape {tuple(labels.shape)} were given, and {wanted} is needed for {self.kind!r}"
            )
        if self.kind == "multi" and bool(((labels < 0) | (labels > 1)).any()):
            low, high = (float(v) for v in labels.aminmax())
            raise DataError(
                f"labels from {low:g} to {high:g} were given; of several labels each is 1 for yes, 0 for no, or a "
                f"share between them"
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
        """Task loss of logits (B, C) against labels (B,) int64, (B, C) float or (B,) float.

        Weighted losses are divided by the number of samples and not by their weights, so that the pieces of a batch add
        up to the whole.
        """
        smoothing = self.label_smoothing
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        if self.kind == "single":
            if weights is None:
                return F.cross_entropy(logits, labels, label_smoothing=smoothing)
            found = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing, reduction="sum")
            return found / len(labels)
        if self.kind == "multi":
            smoothed = labels.float() * (1 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, smoothed, weight=weights)
        return F.mse_loss(logits.squeeze(-1), labels.float())

    def distillation(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, settings: Settings
    ) -> torch.Tensor:
        """NKD for three or more classes, temperature-scaled KL for two, BCE for several labels, MSE for numbers.

        Of a sample with a share of several classes, NKD is the sum of each class's, times its share (our choice).
        """
        teacher = chosen_teacher(student, teacher, settings.teacher)
        if self.kind == "multi":
            return bce(student, teacher)
        if self.kind == "float":
            return mse(student, teacher)
        if self.num_outputs == 2:
            return kl(student, teacher, settings.kl_temperature)
        if not labels.is_floating_point():
            return nkd(student, teacher, labels, settings.nkd_gamma, settings.nkd_tau)
        shares, classes = labels.sort(1, descending=True)
        most = int((shares > 0).sum(1).max())
        parts = [
            nkd(student, teacher, classes[:, k], settings.nkd_gamma, settings.nkd_tau, share=shares[:, k])
            for k in range(most)
        ]
        return torch.stack(parts).sum()

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


def _weights(given: Sequence[float], classes: Sequence[str]) -> torch.Tensor:
    if not all(is_number(w) and w >= 0 for w in given) or len(given) != len(classes) or not any(given):
        raise ConfigError(
            f"class_weights={list(given)!r}: {len(classes)} numbers are needed, none below 0, one for each of "
            f"{', '.join(classes[:SHOWN])}{', ...' * (len(classes) > SHOWN)}"
        )
    return torch.tensor(given, dtype=torch.float32)


def _check_shares(labels: torch.Tensor, shape: tuple[int, int]) -> None:
    if tuple(labels.shape) != shape or not labels.is_floating_point():
        raise DataError(
            f"labels of shape {tuple(labels.shape)} and type {labels.dtype} were given; needed are class indices "
            f"({shape[0]},), or shares of each class {shape} that are floats"
        )
    if bool((labels < 0).any()) or not torch.allclose(labels.sum(1), labels.new_ones(()), atol=1e-3):
        raise DataError("labels that are shares of each class must not be negative, and add up to 1 in every row")


def balanced_weights(labels: Sequence[int], classes: Sequence[str]) -> list[float]:
    """Weights with which every class counts alike: scikit-learn's "balanced", n / (C n_c). Samples have 1 on average.

    Raises:
        ConfigError: a class has no example.
    """
    from sklearn.utils.class_weight import compute_class_weight

    there = set(labels)
    if missing := [name for i, name in enumerate(classes) if i not in there]:
        raise ConfigError(
            f"task.class_weights='balanced' needs an example of each class, and there is none of "
            f"{', '.join(missing[:SHOWN])}: give weights as a list, or classes without those"
        )
    return compute_class_weight("balanced", classes=np.arange(len(classes)), y=np.asarray(labels)).tolist()


__all__ = ["KINDS", "Prediction", "balanced_weights"]
