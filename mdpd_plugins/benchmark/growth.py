"""How training memory grows with one setting, such as the number of blocks or the batch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.training.config import any_method, load_config
from mdpd_plugins.training.experiment import build_experiment
from mdpd_plugins.training.step_memory import measure_step


def scaling(
    config: Path, setting: str, values: Sequence[int], methods: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Training state of each method at each value.

    Args:
        config: a config file. setting: dotted key of the configuration that takes the values.
        methods: rows of METHODS. options: further overrides.

    Returns:
        {"setting", "config", "options", "results"}, and a result for each method at each value with its
        training_state_bytes and hidden_state_bytes, those of one (B, T, D) hidden state of the widest block.
    """
    rows = []
    for value in values:
        for method in methods:
            print(f"{setting}={value}: {method}", file=sys.stderr, flush=True)
            given = {**options, setting: value, "distill.method": method}
            experiment = build_experiment(any_method(load_config(config, given)))
            batch = next(iter(experiment.train_loader))
            with torch.no_grad(), experiment.adapter.capture() as seen:
                experiment.adapter.forward(batch["inputs"])
            hidden = max(h.nbytes for h in seen.hidden.values())
            del seen
            state = measure_step(experiment, batch).total
            rows.append({"method": method, "value": value, "training_state_bytes": state, "hidden_state_bytes": hidden})
            del experiment, batch
            gc.collect()
    return {"setting": setting, "config": str(config), "options": dict(options), "results": rows}


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """(slope, intercept, largest residual as a share of the largest value) of the least-squares line."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    rise = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    start = mean_y - rise * mean_x
    off = max(abs(start + rise * x - y) for x, y in points)
    return rise, start, off / max(abs(y) for _, y in points)


__all__ = ["scaling", "slope"]
