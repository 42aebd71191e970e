"""Curves of both paths and of every loss term, and when the backbone catches up with the side network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mdpd_plugins.reporting.history import Points
from mdpd_plugins.tasks.scores import ERRORS


@dataclass(frozen=True)
class CatchUp:
    """Backbone against side network, at the validations that measured both.

    Attributes:
        metric: its name. first: step of the first validation at which the backbone is at least as good, or None.
        still: whether it is so at the last one. backbone, side: values at the last one. step: of the last one.
    """

    metric: str
    first: int | None
    still: bool
    backbone: float
    side: float
    step: int


def catch_up(metrics: Mapping[str, Points], main: str = "") -> CatchUp | None:
    """When the backbone caught up; None where both paths were never measured.

    Args:
        main: the metric to go by; the first one that was logged, if this one was not.
    """
    for name in sorted(metrics, key=lambda n: n != f"backbone/{main}"):
        path, _, metric = name.partition("/")
        if path != "backbone" or f"side/{metric}" not in metrics:
            continue
        side = dict(metrics[f"side/{metric}"])
        both = [(step, value, side[step]) for step, value in metrics[name] if step in side]
        if not both:
            continue
        sign = -1 if metric in ERRORS else 1
        reached = [(step, sign * ours >= sign * theirs) for step, ours, theirs in both]
        first = next((step for step, there in reached if there), None)
        step, backbone, its = both[-1]
        return CatchUp(metric, first, reached[-1][1], backbone, its, step)
    return None


def metric_charts(metrics: Mapping[str, Points]) -> dict[str, dict[str, Points]]:
    """Metric -> path -> its curve."""
    charts: dict[str, dict[str, Points]] = {}
    for name, points in metrics.items():
        path, _, metric = name.partition("/")
        charts.setdefault(metric, {})[path] = points
    return charts


def loss_charts(losses: Mapping[str, Points]) -> dict[str, dict[str, Points]]:
    """Kind of term, such as "side/imitation" -> term as logged -> its curve; the layers of a kind share a chart."""
    charts: dict[str, dict[str, Points]] = {}
    for name, points in losses.items():
        charts.setdefault(re.sub(r"_\d+$", "", name), {})[name] = points
    # Those of a path together, the side network's first, as in a step.
    return dict(sorted(charts.items(), key=lambda item: not item[0].startswith("side/")))


__all__ = ["CatchUp", "catch_up", "loss_charts", "metric_charts"]
