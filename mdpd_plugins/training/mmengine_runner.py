"""mmengine's Runner with checkpoints that survive a kill and open without pickled code."""

from __future__ import annotations

import logging
import re
import textwrap
import time
import warnings
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.utils import apply_to

from mdpd_plugins.console import WIDTH
from mdpd_plugins.engine import NonFiniteLossError
from mdpd_plugins.engine.learned import load_learned
from mdpd_plugins.files import fresh_file, sha256, write_text
from mdpd_plugins.freed_memory import give_back
from mdpd_plugins.training.checkpoints import OPTIMIZER, add_sum, clear_optimizers, optimizer_file, read_run
from mdpd_plugins.training.config import RUN_CONFIG
from mdpd_plugins.training.interrupts import InterruptHook
from mdpd_plugins.training.parallel.sharding import place, whole
from mdpd_plugins.training.progress import ProgressHook
from mdpd_plugins.training.run_record import run_name
from mdpd_plugins.training.schedules import configured, started_anew

PLAIN = (str, int, float, bool, type(None))
# What mmengine says about itself at every start. It stays in the log file.
# `ProgressHook` says in short lines what "Iter(" lines say.
NOT_FOR_THE_SCREEN = ("will be deprecated in future", "is the alias of", "Advance dataloader", "Iter(", "Exp name: ")


class NonFiniteWeightError(NonFiniteLossError):
    """A weight became NaN or infinite although the loss it came from was finite."""


class FadingRunner(Runner):
    """mmengine's Runner, except that a checkpoint appears whole or not at all.

    Gradients of several processes are averaged in `AveragedOptimWrapper`: the parameters that train are few,
    and DDP's reducer cannot follow a phase that runs at every fourth step only. So the model is not wrapped.

    Attributes:
        schedules: path -> configurations of its schedulers.
        spent: what training steps have taken since `train` began, see `StepClockHook`.
    """

    spent: dict[str, float]
    _last_started = ""

    def __init__(self, *args, work_dir: str, **kwargs):
        # mmengine names a run's log folder, and its logger, visualiser and message hub, by the second it begins in:
        # two runs of one process and second, or of one work directory and second, would write into one another's.
        while (now := time.strftime("%Y%m%d_%H%M%S")) == FadingRunner._last_started or (Path(work_dir) / now).exists():
            time.sleep(0.05)
        super().__init__(*args, work_dir=work_dir, **kwargs)
        self.schedules = {name: list(own) for name, own in kwargs["param_scheduler"].items()}
        FadingRunner._last_started = self.timestamp

    def build_logger(self, *args, **kwargs):
        """mmengine's logger; pages of environment and hooks go to its file and not to the screen."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(_for_the_screen)
                handler.setFormatter(ShortLines())
        return logger

    @master_only
    def dump_config(self) -> None:
        """The configuration as config.py, whole or not at all."""
        write_text(Path(self.work_dir) / RUN_CONFIG, self.cfg.pretty_text)

    def wrap_model(self, model_wrapper_cfg, model):
        """The model on its device, never wrapped."""
        from mmengine.device import get_device

        if self.cfg.parallel.shard:
            place(model, get_device())
            return model
        return model.to(get_device())

    def train(self):
        """As mmengine's, without PyTorch's warning that a schedule moves on where the optimiser does not.

        The backbone's turn comes at every n-th step only, and its schedule counts all of them.

        Raises:
            Interrupted: SIGINT or SIGTERM came, and what was trained up to then has been saved.
        """
        interrupts = InterruptHook()
        self.register_hook(interrupts)
        progress = ProgressHook(self.cfg.train.log_every)
        self.register_hook(progress)
        with warnings.catch_warnings(), interrupts.listening():
            warnings.filterwarnings("ignore", message="Detected call of `scheduler.step", category=UserWarning)
            try:
                return super().train()
            finally:
                progress.stop()

    def resume(self, filename, *args, **kwargs) -> None:
        """As mmengine's; a learning rate, a schedule or a length that the config has changed counts from here on.

        Nothing is touched where nothing has changed, to keep a resume bit for bit.
        """
        rates = {k: [g["initial_lr"] for g in w.param_groups] for k, w in self.optim_wrapper.items()}
        wanted = {name: configured(found) for name, found in self.param_schedulers.items()}
        super().resume(filename, *args, **kwargs)
        for name, wrapper in self.optim_wrapper.items():
            resumed = [g["initial_lr"] for g in wrapper.param_groups], configured(self.param_schedulers[name])
            if resumed != (rates[name], wanted[name]):
                self.param_schedulers[name] = started_anew(
                    wrapper,
                    rates[name],
                    partial(self._build_param_scheduler, self.schedules[name], wrapper),
                    self.iter,
                    self.max_iters,
                )

    def load_checkpoint(self, filename, *args, **kwargs):
        """A checkpoint of a run, whose weights are then in the model.

        Raises:
            CheckpointError: it belongs to another configuration, or to other frozen weights; nothing is changed.
        """
        checkpoint = read_run(Path(filename))
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        load_learned(self.model, checkpoint["state_dict"], repr(str(filename)))
        self._has_loaded = True
        self.logger.info(f"Load checkpoint from {filename}")
        return checkpoint

    def save_checkpoint(self, out_dir, filename, *args, **kwargs) -> None:
        """As mmengine's, through a temporary name: a kill while writing leaves the previous checkpoints valid.

        The optimisers' state has a file of its own, written first (see `checkpoints`).

        Raises:
            NonFiniteWeightError: a weight is not finite; nothing is written.
        """
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                raise NonFiniteWeightError(
                    f"step {self.iter + 1}: the weight {name} is not finite any more, so this step is not saved. "
                    f"Training stops here. Lower the learning rate of that path"
                )
        target = Path(out_dir) / filename
        with whole(self.model):  # of all processes, of which the first one writes
            if self.rank != 0:
                return super().save_checkpoint(out_dir, filename, *args, **kwargs)
            target.parent.mkdir(parents=True, exist_ok=True)
            own = re.fullmatch(r"iter_\d+\.pth", filename)  # another hook of mmengine's may write under other names
            if own and kwargs.get("save_optimizer", True):
                meta = {**(kwargs.get("meta") or {}), OPTIMIZER: self._save_optimizers(optimizer_file(target))}
                kwargs |= {"meta": meta, "save_optimizer": False}
            with fresh_file(target) as temporary:
                super().save_checkpoint(out_dir, temporary.name, *args, **kwargs)
                if own:
                    add_sum(temporary, target)
            clear_optimizers(target.parent)

    def _save_optimizers(self, target: Path) -> str:
        state = apply_to(self.optim_wrapper.state_dict(), torch.is_tensor, lambda tensor: tensor.cpu())
        with fresh_file(target) as temporary:
            with temporary.open("wb") as file:  # given a name, PyTorch writes that into the file
                torch.save(state, file)
            return sha256(temporary)


def _for_the_screen(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return "\n" not in message and not any(phrase in message for phrase in NOT_FOR_THE_SCREEN)


class ShortLines(logging.Formatter):
    """The message alone, in lines of at most `WIDTH` characters but for a longer word; the file has time and level."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        return textwrap.fill(record.getMessage(), WIDTH, break_long_words=False, break_on_hyphens=False)


class ResumableLoop(IterBasedTrainLoop):
    """mmengine's loop, except that a resume does not read the batches that went by."""

    def run(self):
        """Train from where the checkpoint was written to the last step."""
        if self._iter:
            self.dataloader.batch_sampler.start_at(self._iter)
            # The parent asks for every batch that went by and throws it away; these cost nothing.
            self.dataloader_iterator = chain(repeat(None, self._iter), iter(self.dataloader))
        try:
            return super().run()
        finally:
            # Loader processes end with their iterator, but take seconds if the garbage collector has to find it.
            self.dataloader_iterator = None


class PlainCheckpointHook(Hook):
    """Leaves only tensors and plain values in a checkpoint, and adds the run's name and where its weights came from.

    mmengine's message hub pickles its history objects, which PyTorch's safe loading refuses, so mmengine could
    not resume its own file. The histories smooth the printed log and nothing else.
    """

    priority = "VERY_LOW"

    def before_train(self, runner) -> None:
        """Once: what is in the folder later changes nothing."""
        self.run = run_name(Path(runner.work_dir))

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
        checkpoint["meta"] |= {"weights": runner.model.adapter.origin, "run": self.run}


class StepClockHook(Hook):
    """Adds up what training steps take, in `runner.spent`: seconds, and CPU seconds of this process.

    Reading data, evaluation and checkpoints are not counted, nor are steps from before a resume.
    """

    priority = "HIGHEST"

    def before_train(self, runner) -> None:
        """Start at zero."""
        runner.spent = {"seconds": 0.0, "cpu_seconds": 0.0}

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start the clock."""
        self.start = time.perf_counter(), time.process_time()

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop it, when the GPU has done its part too."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        runner.spent["seconds"] += time.perf_counter() - self.start[0]
        runner.spent["cpu_seconds"] += time.process_time() - self.start[1]


class FreedMemoryHook(Hook):
    """Gives back what training steps freed before an evaluation, and what that freed before they go on."""

    def before_val(self, runner) -> None:
        """See the class."""
        give_back()

    def after_val(self, runner) -> None:
        """See the class."""
        give_back()


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_plain(k) and _plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(_plain(v) for v in value)
    return type(value) in PLAIN


__all__ = [
    "FadingRunner",
    "FreedMemoryHook",
    "NonFiniteWeightError",
    "PlainCheckpointHook",
    "ResumableLoop",
    "StepClockHook",
]
