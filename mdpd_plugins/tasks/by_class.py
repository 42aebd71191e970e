"""Which classes are told apart and which are not: scores of each class, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

MOST_CLASSES = 40  # of a confusion matrix (our choice: a wider one cannot be read)


def by_class(kind: str, logits: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """scikit-learn's scores of each class, as plain values; empty for labels that are no classes.

    Args:
        kind: of label. logits: (N, C). labels: (N,) int64, or (N, C) of zeros and ones. classes: names, in order.

    Returns:
        "classes": of each its "name", "precision", "recall", "f1" (0 where they are not defined) and "count" in the
        data. "confusion": rows of counts, label by prediction, for one label each and at most `MOST_CLASSES`; else [].
    """
    if kind not in ("single", "multi"):
        return {}
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    numbers = range(len(classes))
    if kind == "single":
        truth, chosen = labels.numpy(), logits.argmax(1).numpy()
    else:
        truth, chosen = (labels > 0.5).numpy(), (logits > 0).numpy()
    scores = precision_recall_fscore_support(truth, chosen, labels=list(numbers), average=None, zero_division=0)
    rows = zip(classes, *(column.tolist() for column in scores), strict=True)
    square = kind == "single" and len(classes) <= MOST_CLASSES
    return {
        "classes": [dict(zip(("name", "precision", "recall", "f1", "count"), row, strict=True)) for row in rows],
        "confusion": confusion_matrix(truth, chosen, labels=list(numbers)).tolist() if square else [],
    }


__all__ = ["MOST_CLASSES", "by_class"]
