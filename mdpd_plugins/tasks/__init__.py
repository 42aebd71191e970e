"""Tasks: heads' sizes, losses, distillation losses and metrics."""

from __future__ import annotations

from collections.abc import Sequence

from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks.by_class import by_class
from mdpd_plugins.tasks.classification import KINDS, Prediction, balanced_weights
from mdpd_plugins.tasks.language import Language
from mdpd_plugins.tasks.metric import PathMetric
from mdpd_plugins.tasks.retrieval import Retrieval

AnyTask = Prediction | Retrieval | Language


def make_task(
    kind: str,
    classes: Sequence[str],
    metric: str | None = None,
    *,
    width: int,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> AnyTask:
    """The task that labels of a kind are for.

    Args:
        kind: "single", "multi", "float", "pair" (retrieval), or "language", which needs no labels.
        classes, metric, label_smoothing, class_weights: see `Prediction`.
        width: of the joint space of retrieval.

    Raises:
        ConfigError: see `Prediction`; or smoothing or weights for a task without classes.
    """
    if kind in (Language.kind, Retrieval.kind) and (label_smoothing or class_weights is not None):
        raise ConfigError(
            f"label smoothing and class weights are for classes, and task.kind={kind!r} has none: remove "
            f"task.label_smoothing and task.class_weights"
        )
    if kind == Language.kind:
        return Language()
    if kind == Retrieval.kind:
        return Retrieval(width)
    return Prediction(kind, classes, metric, label_smoothing=label_smoothing, class_weights=class_weights)


__all__ = [
    "KINDS",
    "AnyTask",
    "Language",
    "PathMetric",
    "Prediction",
    "Retrieval",
    "balanced_weights",
    "by_class",
    "make_task",
]
