"""What one path knows and the other does not: the room that teaching has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mdpd_plugins.training.experiment import Experiment


def paths_of(experiment: Experiment) -> dict[str, float]:
    """`agreement` at the last evaluation; empty where there are not two paths, or no single label to be right about."""
    distiller, evaluated = experiment.distiller, experiment.metric.evaluated
    taught = distiller.side is not None and distiller.settings.backbone_update != "none"
    return agreement(evaluated) if taught and experiment.task.kind == "single" and evaluated else {}


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


__all__ = ["agreement", "paths_of"]
