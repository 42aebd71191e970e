"""Hooks of mmengine that break a run at one exact moment: with SIGKILL, or with a weight that is no number."""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Trap:
    """Kills whoever pickles it."""

    def __reduce__(self):
        _kill()
        return (object, ())


@HOOKS.register_module()
class KillHook(Hook):
    """Kills at `step`, counted from 1.

    Args:
        moment: "before step", "after step" (its checkpoint has been written), "before saving" (the checkpoint
            before the last is gone, the new one not begun), "while pickling" the checkpoint, "while writing" it
            (as soon as a file for it exists), "before validation" or "before export".
    """

    priority = "LOWEST"

    def __init__(self, step: int, moment: str):
        self.step, self.moment = step, moment

    def _at(self, moment: str, step: int) -> bool:
        return moment == self.moment and step == self.step

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._at("before step", batch_idx + 1):
            _kill()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        step = runner.iter + 1
        if self._at("before saving", step):
            _kill()
        if self._at("while pickling", step):
            checkpoint["trap"] = _Trap()
        if self._at("while writing", step):
            threading.Thread(target=self._watch, args=(Path(runner.work_dir),), daemon=True).start()

    def _watch(self, folder: Path) -> None:
        while not any(str(self.step) in p.name for p in folder.glob("*iter_*")):
            pass
        _kill()

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._at("after step", batch_idx + 1):
            _kill()

    def before_val(self, runner) -> None:
        if self._at("before validation", runner.iter):
            _kill()

    def after_run(self, runner) -> None:
        if self._at("before export", runner.iter):
            _kill()


@HOOKS.register_module()
class PoisonHook(Hook):
    """Makes a weight of the side network NaN after `step`, counted from 1, before that step is saved.

    Args:
        gradient: in that step a gradient of this parameter becomes infinite instead.
    """

    def __init__(self, step: int, gradient: str = ""):
        self.step, self.gradient = step, gradient

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        if self.gradient and batch_idx + 1 == self.step:
            parameter = dict(runner.model.named_parameters())[self.gradient]
            parameter.register_hook(lambda gradient: gradient.clone().fill_(float("inf")))

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if batch_idx + 1 == self.step and not self.gradient:
            runner.model.side.head.output.weight.data[0, 0] = float("nan")


@HOOKS.register_module()
class LimitHook(Hook):
    """Lets something run out at `step`, counted from 1.

    Args:
        moment: "checkpoint" or "export": no file may then be larger than `size` bytes. "memory": a tensor is asked for
            that is larger than any memory.
    """

    priority = "LOWEST"

    def __init__(self, step: int, moment: str, size: int = 0):
        self.step, self.moment, self.size = step, moment, size

    def _limit(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self.moment == "checkpoint" and runner.iter + 1 == self.step:
            self._limit()

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        if self.moment == "memory" and batch_idx + 1 == self.step:
            torch.empty(1 << 60, dtype=torch.uint8)

    def after_run(self, runner) -> None:
        if self.moment == "export":
            self._limit()


@HOOKS.register_module()
class SignalHook(Hook):
    """Sends this process SIGTERM in a step, counted from 1, or in the validation after it."""

    def __init__(self, step: int, moment: str = "step"):
        self.step, self.moment = step, moment

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        if self.moment == "step" and batch_idx + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def before_val_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        if self.moment == "validation" and runner.iter == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
