"""Optimisers of the two paths: gradient accumulation, averaging over processes, and what a resume needs of them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper, OptimWrapperDict

from mdpd_plugins.engine import Distiller, Rates
from mdpd_plugins.engine.gradients import average_over_processes
from mdpd_plugins.engine.optimised import parameter_groups
from mdpd_plugins.registry.errors import MissingDependencyError
from mdpd_plugins.training.sections import ADAMW_8BIT


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
        average_over_processes(self.parameters)

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss over the number of batches that its optimiser step takes together."""
        rest_from = self._max_counts - self._remainder_counts
        in_rest = rest_from <= self._inner_count < self._max_counts
        return loss / (self._remainder_counts if in_rest else self._accumulative_counts)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state and name, the batches counted, and the gradients that still wait for a step."""
        waiting = not self.should_update()
        return {
            **super().state_dict(),
            "type": type(self.optimizer).__name__,
            "phases_done": self._inner_count,
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
            "waiting": [None if p.grad is None else p.grad.clone() for p in self.parameters] if waiting else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        state = dict(state_dict)
        self._inner_count = state.pop("phases_done")
        state.pop("type", None)
        waiting, scaler = state.pop("waiting"), state.pop("scaler")
        if self.scaler is not None and scaler:
            self.scaler.load_state_dict(scaler)
        super().load_state_dict(state)
        for p, gradient in zip(self.parameters, waiting or [None] * len(self.parameters), strict=True):
            p.grad = None if gradient is None else gradient.to(p.device)


class PathOptimisers(OptimWrapperDict):
    """mmengine's optimisers of both paths, as the engine's `Gradients`."""

    _ended: Sequence[str] = ()

    @property
    def scaled(self) -> bool:
        """Whether gradients are scaled for float16."""
        return any(wrapper.scaler is not None for wrapper in self.values())

    def backward(self, path: str, loss: torch.Tensor) -> None:
        """Add the gradient of a part of a batch's loss."""
        self[path].accumulate(loss)

    def end_batch(self, paths: Sequence[str]) -> None:
        """Count the batch in each path that took part."""
        for path in paths:
            self[path].end_batch()
        self._ended = paths

    def discard(self) -> None:
        """Drop all gradients."""
        self.zero_grad()

    def step_where_due(self) -> None:
        """Step the optimisers of the paths that took part in the last batch and have all batches of their step."""
        for path in self._ended:
            if self[path].should_update():
                self[path].step()
                self[path].zero_grad()
        self._ended = ()


def build_optim(distiller: Distiller, config: Config) -> PathOptimisers:
    """AdamW for each path, as the configuration's `optim` section has it.

    Raises:
        MissingDependencyError: `optim.type` needs bitsandbytes, and it is not installed.
    """
    optim, wrappers = config.optim, {}
    rates = Rates.of(**{f.name: optim[f.name] for f in fields(Rates)})
    groups = parameter_groups(distiller, rates)
    paths = {"side": [g for g in groups if g["name"] == "side"], "backbone": [g for g in groups if g["name"] != "side"]}
    learning = sum(bool(distiller.phases.learning(step)) for step in range(distiller.max_steps))
    phases = {"side": distiller.max_steps, "backbone": learning}
    for path, own in paths.items():
        if own:
            # Losses are scaled wherever a gradient passes through float16.
            kinds = {distiller.amp, *(p.dtype for p in distiller.masters.held)}
            wrappers[path] = _wrap(_optimiser(own, optim.type), optim, phases[path], torch.float16 in kinds)
    return PathOptimisers(**wrappers)


def _optimiser(groups: list[dict[str, Any]], kind: str) -> torch.optim.Optimizer:
    if kind != ADAMW_8BIT:
        return torch.optim.AdamW(groups)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f"optim.type={kind!r} needs bitsandbytes: pip install 'mdpd-plugins[quantization]', or leave it out"
        )
    optimiser: torch.optim.Optimizer = importlib.import_module("bitsandbytes.optim").AdamW8bit(groups)
    return optimiser


def _wrap(optimizer: torch.optim.Optimizer, optim: Any, phases: int, scaled: bool) -> AveragedOptimWrapper:
    clip = {"max_norm": optim.clip_grad} if optim.clip_grad else None
    scaler = torch.amp.GradScaler(get_device()) if scaled else None
    return AveragedOptimWrapper(
        optimizer, clip_grad=clip, accumulative_counts=optim.accumulate, phases=phases, scaler=scaler
    )


__all__ = ["AveragedOptimWrapper", "PathOptimisers", "build_optim"]
