"""mmengine's Runner with checkpoints that survive a kill and open without pickled code."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce_params, is_distributed
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS, RUNNERS
from mmengine.runner import Runner

from mdpd_plugins.registry.errors import ConfigError

PLAIN = (str, int, float, bool, type(None))


@RUNNERS.register_module()
class FadingRunner(Runner):
    """mmengine's Runner, except that a checkpoint appears whole or not at all.

    Gradients of several processes are averaged in `AveragedOptimWrapper`: the parameters that train are few,
    and DDP's reducer cannot follow a phase that runs at every fourth step only. So the model is not wrapped.
    """

    def build_logger(self, *args, **kwargs):
        """mmengine's logger; pages of environment and hooks go to its file and not to the screen."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(lambda record: "\n" not in record.getMessage())
        return logger

    def wrap_model(self, model_wrapper_cfg, model):
        """The model on its device, never wrapped."""
        from mmengine.device import get_device

        return model.to(get_device())

    def save_checkpoint(self, out_dir, filename, *args, **kwargs) -> None:
        """As mmengine's, through a temporary name: a kill while writing leaves the previous checkpoints valid."""
        temporary = f".{filename}.part"
        super().save_checkpoint(out_dir, temporary, *args, **kwargs)
        if self.rank == 0:
            os.replace(Path(out_dir) / temporary, Path(out_dir) / filename)


@OPTIM_WRAPPERS.register_module()
class AveragedOptimWrapper(OptimWrapper):
    """An OptimWrapper that averages gradients over processes before it steps."""

    def step(self, **kwargs) -> None:
        """Average, then clip and step as mmengine does."""
        if is_distributed():
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            for p in parameters:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            all_reduce_params([p.grad for p in parameters], coalesce=True, op="mean")
        super().step(**kwargs)


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Leaves only tensors and plain values in a checkpoint.

    mmengine's message hub pickles its history objects, which PyTorch's safe loading refuses, so mmengine could
    not resume its own file. The histories smooth the printed log and nothing else.
    """

    priority = "VERY_LOW"

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Drop histories, keep plain runtime information."""
        hub = checkpoint["message_hub"]
        info = {k: v for k, v in hub["runtime_info"].items() if _plain(v)}
        checkpoint["message_hub"] = {
            "log_scalars": {},
            "runtime_info": info,
            "resumed_keys": {k: v for k, v in hub["resumed_keys"].items() if k in info},
        }
        checkpoint["meta"] = {k: v for k, v in checkpoint["meta"].items() if _plain(v)}


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_plain(k) and _plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(_plain(v) for v in value)
    return type(value) in PLAIN


def latest_checkpoint(work_dir: str | Path) -> Path:
    """The newest complete `iter_*.pth` in a work directory.

    Raises:
        ConfigError: there is none.
    """
    found = [p for p in Path(work_dir).glob("iter_*.pth") if p.stem[5:].isdigit()]
    if not found:
        raise ConfigError(
            f"there is nothing to resume in {str(work_dir)!r}: it holds no iter_*.pth. Check --work-dir, or start "
            f"without --resume"
        )
    return max(found, key=lambda p: int(p.stem[5:]))


__all__ = ["AveragedOptimWrapper", "FadingRunner", "PlainCheckpointHook", "latest_checkpoint"]
