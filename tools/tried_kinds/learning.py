"""A few steps of training that cases share."""

from __future__ import annotations

from typing import Any

import torch
from small_zoo import inputs_of, labels_of
from torch import nn

import mdpd_plugins as mdpd
from mdpd_plugins.adapters import Adapter
from mdpd_plugins.engine import Distiller

QUICK = {"reduction": 4, "bottleneck": 8, "backbone_every": 1, "warmup": 0.0}


def student_of(adapter: Adapter, *batches: tuple[Any, Any], rate: float = 1.0, **settings: Any) -> Distiller:
    """A student after one step on each batch; by default two of the adapter's own."""
    batches = batches or ((inputs_of(adapter), labels_of()),) * 2
    torch.manual_seed(0)
    student = mdpd.distill(adapter, steps=len(batches), **{**QUICK, **settings})
    optimizer = torch.optim.AdamW(student.parameter_groups(scale=rate))
    for inputs, labels in batches:
        student.backward(inputs, labels)
        optimizer.step()
        optimizer.zero_grad()
    return student


def learned(adapter: Adapter, *batches: tuple[Any, Any], **settings: Any) -> nn.Module:
    """The plain model after such a training and fading."""
    return mdpd.fade(student_of(adapter, *batches, **settings), repeats=1)[0]


def equal(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-5) -> bool:
    """Whether two outputs are equal, to a share of the largest."""
    return one.shape == other.shape and bool((one - other).abs().max() <= tolerance * other.abs().max())


__all__ = ["QUICK", "equal", "learned", "student_of"]
