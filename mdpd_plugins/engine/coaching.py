"""A coach's outputs, worked out once, as what the backbone learns from; inputs may have no label.

Coach, then fade: the side network is trained first, on features of the frozen backbone, and teaches afterwards (our
order of the paper's two halves; docs/method.md). A step then costs what a step without a side network costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mdpd_plugins.engine.batch_parts import Piece
from mdpd_plugins.engine.settings import Settings
from mdpd_plugins.engine.task import CoachedTask, Task
from mdpd_plugins.registry.errors import ConfigError, DataError, UsageError

if TYPE_CHECKING:
    from mdpd_plugins.engine.distiller import Distiller


@dataclass(frozen=True)
class Taught:
    """What a coach says of a batch.

    Attributes:
        outputs: (B, C) float, the coach's. labelled: (B,) bool, which samples have a label.
    """

    outputs: torch.Tensor
    labelled: torch.Tensor

    def __getitem__(self, rows: slice) -> Taught:
        return Taught(self.outputs[rows], self.labelled[rows])

    def to(self, device: torch.device) -> Taught:
        """The same on a device."""
        return Taught(self.outputs.to(device), self.labelled.to(device))


def check_coachable(task: Task) -> None:
    """Raise ConfigError unless a coach can teach samples of a task one by one."""
    if not isinstance(task, CoachedTask):
        raise ConfigError(
            f"a coach teaches examples one by one, with one label, several labels or a number, and this task is "
            f"{task.kind!r}: use method='mdpd' or 'mdpd_low_rank', where both networks learn side by side"
        )


def check_taught(taught: Taught, batch: int, distiller: Distiller) -> None:
    """Raise UsageError, ConfigError or DataError unless a coach's outputs fit a student and a batch."""
    check_coachable(distiller.task)
    if distiller.side is not None:
        raise UsageError(
            "taught= is for students without a side network, whose coach has learned before: distill(adapter, "
            "method='mdpd_coach', ...)"
        )
    wanted = (batch, distiller.task.num_outputs)
    if tuple(taught.outputs.shape) != wanted or tuple(taught.labelled.shape) != (batch,):
        raise DataError(
            f"a coach's outputs of shape {tuple(taught.outputs.shape)} with labelled {tuple(taught.labelled.shape)} "
            f"were given, and {wanted} with ({batch},) is needed"
        )
    if taught.labelled.dtype != torch.bool or not taught.outputs.is_floating_point():
        raise DataError(
            f"a coach's outputs are floating point and labelled is bool, but {taught.outputs.dtype} and "
            f"{taught.labelled.dtype} were given"
        )


def coached_terms(
    task: CoachedTask, settings: Settings, logits: torch.Tensor, labels: torch.Tensor, taught: Taught, piece: Piece
) -> dict[str, torch.Tensor]:
    """Loss terms of a backbone that is taught: the labels' own, and the distance to the coach's outputs.

    Each sample counts the same, with a label or without: both are sums over those that count, over all of the piece.
    Samples without a label count where the coach is as sure as `Settings.confidence` asks.

    Args:
        logits: (B, C) float32. labels: (B, ...), any value where there is none. taught: of the same samples.
    """
    terms, known = {}, taught.labelled
    if settings.labels_weight and (count := int(known.sum())):
        loss = task.loss(logits[known], labels[known])
        terms["backbone/task"] = piece.weight * settings.labels_weight * count / len(known) * loss
    coach = taught.outputs.float()
    counted = known | (task.certainty(coach) >= settings.confidence)
    apart = task.coaching(logits, coach, settings) * counted
    terms["backbone/distillation"] = piece.weight * settings.logits_weight * apart.mean()
    return terms


__all__ = ["Taught", "check_coachable", "check_taught", "coached_terms"]
