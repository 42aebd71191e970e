"""SIGTERM and Ctrl-C during training: the step ends, a checkpoint is written, and the process says how to go on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, Hook


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did, with everything saved.

    Attributes:
        signal: that asked. A shell expects the exit status 128 + signal: 130 or 143.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.signal = number


class InterruptHook(Hook):
    """Ends training after the step in which SIGINT or SIGTERM came `while listening`, or in the midst of an evaluation.

    A second signal ends the process at once, as if this hook were not there. Several processes end together, after the
    step in which the first of them was asked.

    Raises:
        Interrupted: from the hook, when the checkpoint has been written.
    """

    priority = "LOWEST"  # after the hook that writes checkpoints, and whatever else a step has

    def __init__(self) -> None:
        self.asked, self.process = 0, os.getpid()
        self.before: dict[int, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, both signals are this hook's. Python handles them in the main thread; elsewhere nothing changes.

        A signal that the process was started to ignore (`nohup`, a script's `&`) stays ignored.
        """
        if threading.current_thread() is threading.main_thread():
            heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
            self.before = {number: signal.signal(number, self._ask) for number in heeded}
        try:
            yield
        except RuntimeError as error:
            if not self.asked:
                raise
            # A signal to a whole group of processes ends data loaders before the step can have its batch.
            raise Interrupted(
                f"interrupted by {signal.Signals(self.asked).name}, and so were the processes that read data: --resume "
                f"goes on from the newest checkpoint",
                self.asked,
            ) from error
        finally:
            self._restore()

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """The step is done; mmengine counts it when this returns."""
        self._stop_if_asked(runner, runner.iter + 1)

    def after_val_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """An evaluation may take long: it is given up, and made again after a resume where it counts."""
        self._stop_if_asked(runner, runner.iter)

    def _ask(self, number: int, frame: Any) -> None:
        if os.getpid() != self.process:
            return  # Ctrl-C in a terminal reaches data loaders, too, and the step still needs them
        self._restore()  # the next one is not asked, it is done
        self.asked = number
        # Past Python's own streams: the signal may have come while one of them was being written to.
        said = f"{signal.Signals(number).name}: saving after this step; once more ends at once, without\n"
        with suppress(OSError):
            os.write(2, said.encode())

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self.before = {}

    def _stop_if_asked(self, runner, step: int) -> None:
        asked = self.asked
        if get_world_size() > 1:
            found = torch.tensor(asked, device=get_device())
            all_reduce(found, "max")
            asked = int(found)
        if not asked:
            return
        path = Path(runner.work_dir) / f"iter_{step}.pth"
        if not path.is_file():
            hook = next(h for h in runner.hooks if isinstance(h, CheckpointHook))
            hook._save_checkpoint_with_step(runner, step, {"epoch": runner.epoch, "iter": step})
        name = signal.Signals(asked).name
        raise Interrupted(
            f"interrupted by {name} after step {step} of {runner.max_iters}, saved in {path}: the same command with "
            f"--resume goes on from there",
            asked,
        )


__all__ = ["InterruptHook", "Interrupted"]
