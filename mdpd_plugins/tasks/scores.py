"""Metrics of predictions, as scikit-learn and scipy define them; and what they are where those have no answer.

Each function gives its kind's main metric first. Of numbers that are not finite (a model that has diverged) every
metric is NaN. Importing scikit-learn takes a second, hence inside the functions.
"""

from __future__ import annotations

import math

import numpy as np
import torch

_SEVERAL = ("micro_f1", "macro_f1", "mean_average_precision")
_NUMBERS = ("pearson", "spearman", "mse")
# Metrics of which less is better; of all others more is.
ERRORS = ("mse", "perplexity", "nll")


def signed(metric: str, value: float) -> float:
    """The value of a metric, so that more is better."""
    return -value if metric in ERRORS else value


def metric_names(kind: str, num_classes: int) -> tuple[str, ...]:
    """Names of the metrics of a kind of label, the main one first."""
    if kind == "single":
        return ("accuracy", "f1", "matthews_correlation") if num_classes == 2 else ("accuracy", "macro_f1")
    return _SEVERAL if kind == "multi" else _NUMBERS


def single_label(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Metrics of classes, logits (N, C) and labels (N,) int64.

    accuracy; for two classes f1 (of class 1) and matthews_correlation, for more macro_f1 (the mean over the classes
    that occur among labels or predictions). A value whose denominator is zero, such as the F1 of a class that is
    neither there nor predicted, or the correlation of a constant prediction, is 0.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    truth, chosen = labels.numpy(), logits.argmax(1).numpy()
    found = {"accuracy": accuracy_score(truth, chosen)}
    if logits.shape[1] == 2:
        found["f1"] = f1_score(truth, chosen, pos_label=1, average="binary", zero_division=0)
        # Both of one class: scikit-learn's formula is 0 / 0, and it warns of a single label.
        constant = len({*truth.tolist(), *chosen.tolist()}) < 2
        found["matthews_correlation"] = 0.0 if constant else matthews_corrcoef(truth, chosen)
    else:
        found["macro_f1"] = f1_score(truth, chosen, average="macro", zero_division=0)
    return {name: float(value) for name, value in found.items()}


def several_labels(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Metrics of several labels a sample, logits (N, C) and labels (N, C) of zeros and ones.

    micro_f1 and macro_f1 at probability 0.5 (a class that is neither there nor predicted counts as 0), and
    mean_average_precision over the classes that occur among the labels (0 if none does): for the others precision
    is not defined.
    """
    from sklearn.metrics import average_precision_score, f1_score

    if not logits.isfinite().all():
        return dict.fromkeys(_SEVERAL, math.nan)
    truth, chosen = (labels > 0.5).numpy(), (logits > 0).numpy()
    found = {f"{how}_f1": f1_score(truth, chosen, average=how, zero_division=0) for how in ("micro", "macro")}
    occurs = truth.any(0)
    found["mean_average_precision"] = (
        average_precision_score(truth[:, occurs], logits.double().numpy()[:, occurs]) if occurs.any() else 0.0
    )
    return {name: float(value) for name, value in found.items()}


def numbers(predicted: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Metrics of numbers, predicted (N,) or (N, 1) and labels (N,).

    pearson, spearman (0 where labels or predictions are constant, or there are fewer than two) and mse, the mean
    squared error.
    """
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_squared_error

    if not predicted.isfinite().all():
        return dict.fromkeys(_NUMBERS, math.nan)
    x, y = predicted.double().reshape(-1).numpy(), labels.double().numpy()
    # What is constant but for rounding has no order either; scipy's own bound for pearsonr's warning.
    constant = any(np.linalg.norm(v - v.mean()) <= 1e-13 * abs(v.mean()) for v in (x, y))
    found = {
        "pearson": 0.0 if constant else pearsonr(x, y).statistic,
        "spearman": 0.0 if constant else spearmanr(x, y).statistic,
        "mse": mean_squared_error(y, x),
    }
    return {name: float(value) for name, value in found.items()}


__all__ = ["ERRORS", "metric_names", "numbers", "several_labels", "signed", "single_label"]
