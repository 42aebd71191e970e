"""How far a run is: a bar with the time left where there is a terminal, short lines where there is none."""

from __future__ import annotations

import logging
import sys
import time
from datetime import timedelta
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mdpd_plugins.console import WIDTH, console

SHOWN = ("loss", "side/task", "backbone/task", "backbone/distillation")


class ProgressHook(Hook):
    """Shows steps, loss terms and evaluations on standard output. mmengine's own, longer lines go to the log file.

    Args:
        every: steps between lines, and the steps that losses are averaged over.
    """

    priority = "VERY_LOW"  # after mmengine's hook that keeps the losses

    def __init__(self, every: int):
        self.every = every
        self.bar: Progress | None = None
        self.console = console(soft_wrap=True)

    def before_train(self, runner) -> None:
        """Start the clock, and the bar where somebody sees it."""
        self.first, self.start = runner.iter, time.perf_counter()
        if not is_main_process() or not self.console.is_terminal:
            return
        columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.completed}/{task.total}")
        self.bar = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[losses]}"), console=self.console)
        self.task = self.bar.add_task("training", total=runner.max_iters, completed=runner.iter, losses="")
        self.bar.start()
        # While the bar is drawn, sys.stdout is rich's, which moves it out of the way of other lines.
        self.redirected = [h for h in runner.logger.handlers if type(h) is logging.StreamHandler]
        self.streams = [h.setStream(sys.stdout) for h in self.redirected]

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """One more step."""
        step = runner.iter + 1
        shown = step % self.every == 0 or step == runner.max_iters
        losses = self._losses(runner) if shown else ""
        if self.bar is not None:
            self.bar.update(self.task, completed=step)
            if shown:
                self.bar.update(self.task, losses=losses)
        elif shown and is_main_process():
            left = (time.perf_counter() - self.start) / (step - self.first) * (runner.max_iters - step)
            self._say(f"step {step}/{runner.max_iters}  left {timedelta(seconds=round(left))}  {losses}")

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """What an evaluation found."""
        if is_main_process():
            found = "  ".join(f"{name} {value:.4f}" for name, value in (metrics or {}).items() if "time" not in name)
            self._say(f"evaluated after step {runner.iter}/{runner.max_iters}  {found}")

    def stop(self) -> None:
        """Take the bar away, however the run ended."""
        if self.bar is not None:
            self.bar.stop()
            for handler, stream in zip(self.redirected, self.streams, strict=True):
                handler.setStream(stream)
            self.bar = None

    def _losses(self, runner) -> str:
        known = runner.message_hub.log_scalars
        values = {name: known[f"train/{name}"].mean(self.every) for name in SHOWN if f"train/{name}" in known}
        return "  ".join(f"{name} {value:.4g}" for name, value in values.items())

    def _say(self, line: str) -> None:
        self.console.print(line[:WIDTH], markup=False, highlight=False)


__all__ = ["ProgressHook"]
