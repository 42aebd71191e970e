"""Tasks: heads' sizes, losses, distillation losses and metrics."""

from __future__ import annotations

from collections.abc import Sequence

from mdpd_plugins.tasks.classification import KINDS, Prediction
from mdpd_plugins.tasks.language import Language
from mdpd_plugins.tasks.metric import PathMetric
from mdpd_plugins.tasks.retrieval import Retrieval

AnyTask = Prediction | Retrieval | Language


def make_task(kind: str, classes: Sequence[str], metric: str | None = None, *, width: int) -> AnyTask:
    """The task that labels of a kind are for.

    Args:
        kind: "single", "multi", "float", "pair" (retrieval), or "language", which needs no labels.
        classes, metric: see `Prediction`.
        width: of the joint space of retrieval.

    Raises:
        ConfigError: see `Prediction`.
    """
    if kind == Language.kind:
        return Language()
    return Retrieval(width) if kind == Retrieval.kind else Prediction(kind, classes, metric)


__all__ = ["KINDS", "AnyTask", "Language", "PathMetric", "Prediction", "Retrieval", "make_task"]
