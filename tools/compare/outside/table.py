"""The comparison as a table: on screen, and on the memory page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = (
    "method",
    "trainable",
    "weights",
    "training state",
    "in all",
    "resident",
    "s/step",
    "of the first's",
    "validation loss",
    "metric",
)
NOTE = (
    "MiB. Training state: peak bytes of a step above the weights. In all: both together. Resident: what the process "
    "held at most, above its libraries; on a GPU what PyTorch had allocated there. Loss and metric are of the "
    "validation data, after the same steps."
)


def cells(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of text a method, under COLUMNS."""
    table = []
    for r in found["results"]:
        state, s = r["memory"]["total"], r["step_seconds"]
        most = r["resident"].get("cuda_peak", r["resident"].get("above"))
        sizes = (r["weight_bytes"], state, r["weight_bytes"] + state, most)
        table.append(
            (
                r["name"],
                f"{r['trainable_parameters']:,}",
                *(f"{size / 2**20:,.1f}" for size in sizes),
                f"{s['median']:.2f}",
                f"{r['step_ratio_to_first']:.2f}",
                f"{r['loss']:.3f}",
                f"{r['metrics'][r['metric']]:.3f}",
            )
        )
    return table


__all__ = ["COLUMNS", "NOTE", "cells"]
