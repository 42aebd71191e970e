"""Training, fading and export of one configuration."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from rich.console import Console

from mdpd_plugins.adapters import origin_of
from mdpd_plugins.adapters.base import fresh_folder
from mdpd_plugins.adapters.checkpoint import read_state_dict
from mdpd_plugins.engine import fade
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.training.card import print_summary, random_notice, write_card, write_json
from mdpd_plugins.training.experiment import Experiment, build_experiment
from mdpd_plugins.training.memory import StepMemory, measure_step
from mdpd_plugins.training.runner import FadingRunner, latest_checkpoint

LOADERS = {
    "huggingface": "transformers' from_pretrained",
    "mmpretrain": "mmpretrain.get_model('config.py', pretrained='model.pth')",
    "open_clip": "open_clip.create_model_and_transforms('local-dir:FOLDER')",
}


def dry_run(config: Config) -> dict[str, Any]:
    """Build everything, run one step of each phase, report its memory; nothing is written."""
    experiment = build_experiment(config)
    _announce(experiment)
    memory = measure_step(experiment, next(iter(experiment.train_loader)))
    parameters = _parameters(experiment)
    console = Console()
    console.print(f"one side step and one backbone step ran; {experiment.max_steps} steps would")
    console.print(f"trained parameters: {parameters['backbone_trained']:,} backbone, {parameters['side']:,} side")
    for key, value in memory.as_dict().items():
        console.print(f"{key.replace('_', ' ')}: {value / 2**20:.1f} MiB")
    return {"memory": memory.as_dict(), "parameters": parameters, "steps": experiment.max_steps}


def train(config: Config, *, resume: bool = False, launcher: str = "none") -> dict[str, Any]:
    """Train, fade, export, and return the summary that is also printed and written to WORK_DIR/summary.json."""
    work_dir = Path(config.work_dir)
    check_writable(work_dir)
    checkpoint = None
    if resume:
        checkpoint = latest_checkpoint(work_dir)
        read_state_dict(checkpoint)  # refuses unsafe or broken files before anything is built
    memory = _measured_aside(config) if launcher == "none" else None
    experiment = build_experiment(config)
    if launcher == "none":
        _announce(experiment)
    runner = build_runner(experiment, checkpoint, launcher)
    runner.train()
    metrics = _last_metrics(runner)
    if runner.rank != 0:
        return {}
    return finish(experiment, metrics, Path(config.export_dir or work_dir / "export"), memory)


def build_runner(experiment: Experiment, checkpoint: Path | None, launcher: str = "none") -> FadingRunner:
    """mmengine's Runner over the experiment's parts."""
    config = experiment.config
    val_every = config.train.val_every or experiment.steps_per_epoch
    save_every = config.train.checkpoint_every or experiment.steps_per_epoch
    schedule = {"type": "CosineAnnealingLR", "T_max": experiment.max_steps, "by_epoch": False, "eta_min": 0.0}
    return FadingRunner(
        model=experiment.distiller,
        work_dir=str(config.work_dir),
        train_dataloader=experiment.train_loader,
        val_dataloader=experiment.val_loader,
        val_evaluator=Evaluator([experiment.metric]),
        optim_wrapper=experiment.optim,
        param_scheduler={name: [dict(schedule)] for name in experiment.optim.optim_wrappers},
        train_cfg={
            "type": "IterBasedTrainLoop",
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
        custom_hooks=[{"type": "PlainCheckpointHook"}, *config.custom_hooks],
        log_processor={"by_epoch": False, "window_size": config.train.log_every},
        log_level="INFO",
        visualizer=config.visualizer or None,
        load_from=str(checkpoint) if checkpoint else None,
        resume=checkpoint is not None,
        launcher=launcher,
        randomness={"seed": config.train.seed},
        env_cfg={"dist_cfg": {"backend": "nccl" if torch.cuda.is_available() else "gloo"}},
        experiment_name=Path(config.work_dir).name,
        cfg=config,
    )


def finish(
    experiment: Experiment, metrics: dict[str, float], export_dir: Path, memory: StepMemory | None
) -> dict[str, Any]:
    """Fade, export, write the card and the summary, print it."""
    config, adapter = experiment.config, experiment.adapter
    parameters = _parameters(experiment)
    batch = next(iter(experiment.val_loader))["inputs"]
    inputs = {k: v.to(adapter.device) for k, v in batch.items()}
    _, report = fade(experiment.distiller, inputs)
    zoo = config.backbone.name.partition("/")[0]
    held: dict[str, int] = memory.as_dict() if memory else {}
    if torch.cuda.is_available():
        held["cuda_peak"] = torch.cuda.max_memory_allocated()
    summary = {
        "backbone": config.backbone.name,
        "zoo": zoo,
        "method": config.distill.get("method", "mdpd"),
        "metrics": metrics,
        "parameters": parameters,
        "memory": held,
        "fading": report.as_dict(),
        "weights": origin_of(adapter.model),
        "data": experiment.source.description,
        "classes": list(experiment.task.classes),
        "steps": experiment.max_steps,
        "seed": config.train.seed,
        "export": str(export_dir),
        "load_with": LOADERS.get(zoo, "the library it comes from"),
    }
    with fresh_folder(export_dir) as folder:
        adapter.write(folder)
        write_card(folder, summary)
    if Path(config.work_dir).is_dir():
        write_json(Path(config.work_dir) / "summary.json", summary)
    print_summary(summary)
    return summary


def export_work_dir(work_dir: str | Path, out: str | Path) -> Path:
    """Fade the latest checkpoint of a work directory and export it to `out`.

    Raises:
        ConfigError: the folder holds no run of this project.
        CheckpointError: its checkpoint does not fit its config.
    """
    from mdpd_plugins.training.config import load_config

    work_dir = Path(work_dir)
    if not (work_dir / "config.py").is_file():
        raise ConfigError(f"{str(work_dir)!r} holds no config.py: it is not a work directory of a training run")
    checkpoint = latest_checkpoint(work_dir)
    config = load_config(work_dir / "config.py")
    config.work_dir = str(work_dir)
    experiment = build_experiment(config)
    state = read_state_dict(checkpoint)
    try:
        experiment.distiller.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint} does not fit {work_dir / 'config.py'}: {error}") from error
    metrics = evaluate(experiment)
    finish(experiment, metrics, Path(out), None)
    return Path(out)


def evaluate(experiment: Experiment) -> dict[str, float]:
    """Metrics of both paths on the validation split."""
    results: list[dict] = []
    for data in experiment.val_loader:
        data = experiment.distiller.data_preprocessor(data)
        results += experiment.distiller(data["inputs"], data["labels"])
    return experiment.metric.compute_metrics(results)


def check_writable(work_dir: Path) -> None:
    """Create `work_dir` and prove it can be written.

    Raises:
        ConfigError: it cannot.
    """
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            pass
    except OSError as error:
        raise ConfigError(
            f"work directory {str(work_dir)!r} cannot be written ({error.strerror}): give another with --work-dir"
        ) from error


def _announce(experiment: Experiment) -> None:
    origin = origin_of(experiment.adapter.model)
    console = Console(stderr=True)
    console.print(f"weights: {origin}")
    if notice := random_notice(origin):
        console.print(notice, style="bold red")


def _measured_aside(config: Config) -> StepMemory:
    # Its own experiment, so that the run itself starts untouched; freed before the run is built.
    experiment = build_experiment(config)
    return measure_step(experiment, next(iter(experiment.train_loader)))


def _parameters(experiment: Experiment) -> dict[str, int]:
    return {
        "backbone": sum(p.numel() for p in experiment.adapter.parameters().values()),
        "backbone_trained": sum(p.numel() for p in experiment.distiller.trainable.values()),
        "side": sum(p.numel() for p in experiment.distiller.side_parameters()),
    }


def _last_metrics(runner: FadingRunner) -> dict[str, float]:
    scalars = runner.message_hub.log_scalars
    return {k[4:]: float(v.current()) for k, v in scalars.items() if k.startswith("val/") and "time" not in k}


os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # data loaders fork after the tokenizer was used

__all__ = ["build_runner", "dry_run", "evaluate", "export_work_dir", "finish", "train"]
