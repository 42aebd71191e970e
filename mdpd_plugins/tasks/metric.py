"""mmengine's evaluator, fed with both paths."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from mdpd_plugins.engine.task import Task


class PathMetric(BaseMetric):
    """The task's metrics of the backbone path and, where there is one, of the side path.

    Args:
        task: what is measured. Keys become `backbone/<metric>` and `side/<metric>`.

    Attributes:
        evaluated: of the last evaluation, what `Distiller.forward` returned for each sample.
    """

    default_prefix = ""  # keys carry their path already

    def __init__(self, task: Task, collect_device: str = "cpu"):
        super().__init__(collect_device=collect_device)
        self.task = task
        self.evaluated: list[dict[str, torch.Tensor]] = []

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Keep what `Distiller.forward` returned for a batch."""
        self.results += [{k: torch.as_tensor(v).cpu() for k, v in sample.items()} for sample in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Metrics over the whole evaluation set."""
        self.evaluated = results
        labels = torch.stack([r["label"] for r in results])
        found = {}
        for path in ("backbone", "side"):
            if path in results[0]:
                metrics = self.task.metrics(torch.stack([r[path] for r in results]), labels)
                found.update({f"{path}/{k}": v for k, v in metrics.items()})
        return found


__all__ = ["PathMetric"]
