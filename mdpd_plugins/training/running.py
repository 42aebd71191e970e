"""mmengine's Runner over an experiment's parts, and its training to the last step."""

from __future__ import annotations

import copy
from pathlib import Path

from mmengine.evaluator import Evaluator

from mdpd_plugins.engine import NonFiniteLossError
from mdpd_plugins.training.averaging import AverageHook, MeasuredHook, fingerprint
from mdpd_plugins.training.best import BestHook
from mdpd_plugins.training.checkpoints import refuse_last
from mdpd_plugins.training.experiment import Experiment, watches
from mdpd_plugins.training.mmengine_runner import (
    FadingRunner,
    FreedMemoryHook,
    NonFiniteWeightError,
    PlainCheckpointHook,
    ResumableLoop,
    StepClockHook,
)
from mdpd_plugins.training.parallel.sharding import ShardHook
from mdpd_plugins.training.schedules import schedulers


def build_runner(experiment: Experiment, checkpoint: Path | None, launcher: str = "none") -> FadingRunner:
    """mmengine's Runner over the experiment's parts."""
    config = experiment.config
    val_every = config.train.val_every or experiment.steps_per_epoch
    save_every = config.train.checkpoint_every or experiment.steps_per_epoch
    schedule = schedulers(config.optim.schedule, config.optim.warmup, experiment.max_steps)
    return FadingRunner(
        model=experiment.distiller,
        work_dir=str(config.work_dir),
        train_dataloader=experiment.train_loader,
        val_dataloader=experiment.val_loader,
        val_evaluator=Evaluator([experiment.metric]),
        optim_wrapper=experiment.optim,
        param_scheduler={name: copy.deepcopy(schedule) for name in experiment.optim.optim_wrappers},
        train_cfg={
            "type": ResumableLoop,
            "max_iters": experiment.max_steps,
            "val_interval": val_every,
        },
        val_cfg={},
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": config.train.log_every, "log_metric_by_epoch": False},
            # Two are kept: the older one is removed before the newer is written.
            "checkpoint": {"type": "CheckpointHook", "interval": save_every, "by_epoch": False, "max_keep_ckpts": 2},
            "sampler_seed": None,
        },
        custom_hooks=[
            PlainCheckpointHook(),
            StepClockHook(),
            FreedMemoryHook(),
            MeasuredHook(experiment.distiller),
            *([_average_hook(experiment)] if config.train.ema else []),
            *([ShardHook()] if config.parallel.shard else []),
            *([_best_hook(experiment)] if watches(config) else []),
            *config.custom_hooks,
        ],
        log_processor={"by_epoch": False, "window_size": config.train.log_every},
        log_level="INFO",
        visualizer=config.visualizer or None,
        load_from=str(checkpoint) if checkpoint else None,
        resume=checkpoint is not None,
        launcher=launcher,
        randomness={"seed": config.train.seed},
        experiment_name=Path(config.work_dir).name,
        cfg=config,
    )


def _average_hook(experiment: Experiment) -> AverageHook:
    config = experiment.config
    return AverageHook(experiment.distiller, config.train.ema, config.optim.accumulate)


def _best_hook(experiment: Experiment) -> BestHook:
    given = experiment.config.train
    return BestHook(experiment, keep=given.keep == "best", patience=given.patience)


def run_to_the_end(runner: FadingRunner) -> dict[str, float]:
    """Train all steps that are left, and return the metrics of the last evaluation."""
    try:
        runner.train()
    except NonFiniteLossError as error:
        # A weight that is not finite was found when it was to be saved: the checkpoint before is a good one.
        steps = -1 if isinstance(error, NonFiniteWeightError) else runner.iter
        left = refuse_last(Path(runner.work_dir), steps)
        raise NonFiniteLossError(f"{error} ({left})") from error
    if not (metrics := _last_metrics(runner)):
        # Resumed after the last step: a kill had come between it and its validation.
        runner.val()
        metrics = _last_metrics(runner)
    return metrics


def measured(runner: FadingRunner, experiment: Experiment) -> bool:
    """Whether the last evaluation was of the weights that are there now, and not of what a hook put in their place."""
    hook = next(h for h in runner.hooks if isinstance(h, MeasuredHook))
    return hook.measured == fingerprint(experiment.distiller)


def _last_metrics(runner: FadingRunner) -> dict[str, float]:
    scalars = runner.message_hub.log_scalars
    return {k[4:]: float(v.current()) for k, v in scalars.items() if k.startswith("val/") and "time" not in k}


__all__ = ["build_runner", "measured", "run_to_the_end"]
