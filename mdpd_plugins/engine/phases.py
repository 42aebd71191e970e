"""Which step updates what: the side network at every step, the backbone in its turn, its tail in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from mdpd_plugins.engine.settings import Settings

Parameters = Mapping[str, nn.Parameter]


class Phases:
    """The rhythm of a run.

    Args:
        max_steps: steps of the whole run; the warm-up is a share of them.
        accumulate: batches per optimiser step. All of them are in the same phase.
        trainable: native key -> backbone parameter that training may change. tail: those that learn at every step.
    """

    def __init__(self, settings: Settings, *, max_steps: int, accumulate: int, trainable: Parameters, tail: Parameters):
        self.accumulate, self.trainable, self.tail = accumulate, trainable, tail
        self.warmup_steps = round(settings.warmup * max_steps)
        self.cycle = settings.backbone_every * accumulate if trainable else 1
        """Batches after which phases repeat. The last `accumulate` of them are the backbone phase."""

    def backbone(self, step: int) -> bool:
        """Whether a step updates all of the backbone that training may change."""
        return bool(self.trainable) and step % self.cycle >= self.cycle - self.accumulate

    def learning(self, step: int) -> Parameters:
        """Native key -> backbone parameter that a step updates: all that are trained, or the tail's."""
        return self.trainable if self.backbone(step) else self.tail

    def warming_up(self, step: int) -> bool:
        """Whether logits distillation has not begun yet."""
        return step < self.warmup_steps

    def measured_step(self, max_steps: int) -> int:
        """A late step of a backbone phase, its last batch: the one that holds most."""
        return max(1, max_steps // self.cycle) * self.cycle - 1

    @contextmanager
    def only_learning(self, step: int) -> Iterator[None]:
        """Inside, nothing else of the backbone asks for a gradient, so autograd keeps no graph below."""
        learning = self.learning(step)
        waiting = [p for name, p in self.trainable.items() if name not in learning]
        for parameter in waiting:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in waiting:
                parameter.requires_grad_(True)


__all__ = ["Phases"]
