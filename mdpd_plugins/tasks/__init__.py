"""Tasks: heads' sizes, losses, distillation losses and metrics."""

from mdpd_plugins.tasks.classification import KINDS, Prediction
from mdpd_plugins.tasks.metric import PathMetric

__all__ = ["KINDS", "PathMetric", "Prediction"]
