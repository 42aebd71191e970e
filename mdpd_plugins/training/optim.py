"""Optimisers of the two paths: gradient accumulation, averaging over processes, and what a resume needs of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_reduce_params, is_distributed
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mdpd_plugins.engine import Distiller


@OPTIM_WRAPPERS.register_module()
class AveragedOptimWrapper(OptimWrapper):
    """An OptimWrapper that averages gradients over processes, and counts its own path's batches.

    Args:
        phases: batches that this path gets in the whole run. The last optimiser step takes whatever has been
            accumulated by then, so that nothing is lost if `accumulative_counts` does not divide it.
        scaler: scales losses so that float16 gradients do not vanish, and leaves out steps in which they overflowed
            (Micikevicius et al., arXiv:1710.03740, sec. 3.2). mmengine's own wrapper for it asserts a GPU.
    """

    def __init__(self, *args, phases: int, scaler: torch.amp.GradScaler | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.scaler = scaler
        self._max_counts = phases
        self._remainder_counts = phases % self._accumulative_counts

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What the optimiser trains."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def accumulate(self, loss: torch.Tensor) -> None:
        """Differentiate a part of a batch's loss. `end_batch` must follow when all of it has been."""
        loss = self.scale_loss(loss)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, **kwargs: Any) -> None:
        """One optimiser step, on clipped gradients where that is configured."""
        if self.scaler is None:
            super().step(**kwargs)
            return
        self.scaler.unscale_(self.optimizer)
        if self.clip_grad_kwargs:
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def end_batch(self) -> None:
        """Count the batch and average its gradients over processes.

        After every batch and not only before a step: what has been accumulated is then the same in each process,
        and the first one's checkpoint holds it for all.
        """
        self._inner_count += 1
        if is_distributed():
            # Which parameters have one depends on settings and step alone: it is the same list everywhere.
            all_reduce_params([p.grad for p in self.parameters if p.grad is not None], coalesce=True, op="mean")

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss over the number of batches that its optimiser step takes together."""
        rest_from = self._max_counts - self._remainder_counts
        in_rest = rest_from <= self._inner_count < self._max_counts
        return loss / (self._remainder_counts if in_rest else self._accumulative_counts)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, the batches counted, and the gradients that still wait for a step."""
        waiting = not self.should_update()
        return {
            **super().state_dict(),
            "phases_done": self._inner_count,
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
            "waiting": [None if p.grad is None else p.grad.clone() for p in self.parameters] if waiting else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        state = dict(state_dict)
        self._inner_count = state.pop("phases_done")
        waiting, scaler = state.pop("waiting"), state.pop("scaler")
        if self.scaler is not None and scaler:
            self.scaler.load_state_dict(scaler)
        super().load_state_dict(state)
        for p, gradient in zip(self.parameters, waiting or [None] * len(self.parameters), strict=True):
            p.grad = None if gradient is None else gradient.to(p.device)


def build_optim(distiller: Distiller, config: Config) -> OptimWrapperDict:
    """AdamW for each path; learning rates are `optim.scale` times those of the configuration."""
    optim, wrappers = config.optim, {}
    side = distiller.side_parameters()
    if side:
        optimizer = torch.optim.AdamW(side, lr=optim.scale * optim.side_lr, weight_decay=optim.side_weight_decay)
        wrappers["side"] = _wrap(optimizer, optim, distiller.max_steps, distiller.amp)
    if distiller.trainable:
        groups = [
            {"params": parameters, "lr": optim.scale * rate, "weight_decay": decay}
            for parameters, rate, decay in _backbone_groups(distiller, optim)
            if parameters
        ]
        steps = range(distiller.max_steps)
        phases = sum(bool(distiller.phases.learning(step)) for step in steps)
        optimizer = torch.optim.AdamW(groups)
        wrappers["backbone"] = _wrap(optimizer, optim, phases, distiller.amp)
    return OptimWrapperDict(**wrappers)


def _backbone_groups(distiller: Distiller, optim: Any) -> list[tuple[list[nn.Parameter], float, float]]:
    """(parameters, learning rate, weight decay): norms, low-rank updates, output layer, and all else.

    Norm parameters decay nothing: they are scales and shifts around one and zero. In full fine-tuning they learn as
    the weights around them do.
    """
    adapter, full = distiller.adapter, distiller.settings.backbone_update == "all"
    kinds: list[tuple[Mapping[str, nn.Parameter], float, float]] = [
        (adapter.norm_parameters(), optim.weight_lr if full else optim.norm_lr, 0.0),
        (distiller.low_rank, optim.low_rank_lr, optim.head_weight_decay),
        (adapter.head_parameters() if full else distiller.trainable, optim.head_lr, optim.head_weight_decay),
        (distiller.trainable, optim.weight_lr, optim.head_weight_decay),
    ]
    left = {id(p): p for p in distiller.trainable.values()}
    return [([left.pop(id(p)) for p in chosen.values() if id(p) in left], rate, decay) for chosen, rate, decay in kinds]


def _wrap(optimizer: torch.optim.Optimizer, optim: Any, phases: int, dtype: torch.dtype | None) -> AveragedOptimWrapper:
    clip = {"max_norm": optim.clip_grad} if optim.clip_grad else None
    scaler = torch.amp.GradScaler(get_device()) if dtype is torch.float16 else None
    return AveragedOptimWrapper(
        optimizer, clip_grad=clip, accumulative_counts=optim.accumulate, phases=phases, scaler=scaler
    )


def follow_config(wrapper: OptimWrapper, scheduler: Any, initial: Sequence[float], done: int, max_steps: int) -> None:
    """After a resume: let a changed learning rate or number of steps count from here on.

    mmengine takes both from the checkpoint, so that a run which had stopped on a non-finite loss could not be
    resumed with a lower rate. Nothing is touched where nothing has changed, to keep a resume bit for bit.

    Args:
        initial: the configured learning rate of each of `wrapper.param_groups`.
        scheduler: its cosine schedule, which holds the number of steps as `T_max` and `end`.
        done, max_steps: steps that were taken, and that the run now has.
    """
    groups = wrapper.param_groups
    if [g["initial_lr"] for g in groups] == list(initial) and max_steps == scheduler.T_max:
        return
    scheduler.T_max = scheduler.end = max_steps
    scheduler.base_values, scheduler.last_step = list(initial), min(done, max_steps - 1)
    factor = (1 + math.cos(math.pi * scheduler.last_step / max_steps)) / 2
    for group, rate in zip(groups, initial, strict=True):
        group["initial_lr"], group["lr"] = rate, rate * factor


__all__ = ["AveragedOptimWrapper", "build_optim", "follow_config"]
