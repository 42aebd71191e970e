"""What one path knows and the other does not: the room that teaching has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def agreement(evaluated: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, float]:
    """Shares of the samples, by the class with the largest logit of either path.

    Args:
        evaluated: of each sample "label" () int64, and "backbone" and "side", logits (C,).

    Returns:
        mean: right by the mean of both paths' logits, `distill.teacher="mean"`; either: right by at least one path;
        differ: of two opinions.
    """
    labels, backbone, side = (torch.stack([s[key] for s in evaluated]) for key in ("label", "backbone", "side"))
    said = {"backbone": backbone.argmax(1), "side": side.argmax(1), "mean": (backbone + side).argmax(1)}
    right = {path: classes == labels for path, classes in said.items()}
    found = {
        "mean": right["mean"],
        "either": right["backbone"] | right["side"],
        "differ": said["backbone"] != said["side"],
    }
    return {name: shares.double().mean().item() for name, shares in found.items()}


__all__ = ["agreement"]
