"""Training, fading and export of one configuration."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator

from mdpd_plugins.console import console
from mdpd_plugins.data import describe, description_lines
from mdpd_plugins.engine import NonFiniteLossError, Settings, fade
from mdpd_plugins.engine.learned import load_learned
from mdpd_plugins.exports import check_reloads, check_replaceable, record_of
from mdpd_plugins.files import fresh_folder, write_json
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks import Language, by_class
from mdpd_plugins.training.averaging import AverageHook, MeasuredHook, check_hooks, fingerprint
from mdpd_plugins.training.best import BestHook, exported_state, load_best
from mdpd_plugins.training.card import print_summary, random_notice, write_card
from mdpd_plugins.training.checkpoints import (
    checkpoints,
    clear_leftovers,
    latest_checkpoint,
    load_run,
    read_summary,
    refuse_last,
)
from mdpd_plugins.training.coach import coach_lines, coached, has_begun, read_coach
from mdpd_plugins.training.compiling import check_backend, compiled
from mdpd_plugins.training.experiment import Experiment, Parts, build_experiment, first_batch, open_parts, watches
from mdpd_plugins.training.lock import locked
from mdpd_plugins.training.memory_advice import advised
from mdpd_plugins.training.mmengine_runner import (
    FadingRunner,
    NonFiniteWeightError,
    PlainCheckpointHook,
    ResumableLoop,
    StepClockHook,
)
from mdpd_plugins.training.parallel.processes import joined
from mdpd_plugins.training.parallel.sharding import ShardHook, weights_held, whole_state
from mdpd_plugins.training.run_record import (
    begin_record,
    came_out,
    config_of_work_dir,
    end_record,
    record_now,
    repetition,
)
from mdpd_plugins.training.schedules import schedulers
from mdpd_plugins.training.step_memory import PlanError, measure_step, planned_step, weight_bytes, weights_by_type
from mdpd_plugins.training.two_opinions import paths_of
from mdpd_plugins.training.visualizers import check_visualizer

# Samples that fading compares and times both paths on: enough to compare, few enough to be over soon on a CPU.
COMPARED = 16


def dry_run(config: Config, *, repeats: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Build everything, run one step of each phase, report its memory; nothing is written.

    Args:
        repeats: as of `train`.
    """
    parts = open_parts(config)
    data = described(config, parts)
    _announce(parts, data)
    if repeats is not None:
        _say(repetition(repeats, record_now(config, parts)))
    experiment = build_experiment(config, parts=parts)
    experiment.distiller.to(get_device())
    memory = measure_step(experiment, first_batch(experiment.train_loader))
    parameters = parameters_of(experiment)
    out = console()
    out.print(f"one side step and one backbone step ran; {experiment.max_steps} steps would")
    out.print(f"trained parameters: {parameters['backbone_trained']:,} backbone, {parameters['side']:,} side")
    weights = weight_bytes(experiment)
    types = weights_by_type(experiment)
    by_type = {f"weights in {name}": size for name, size in types.items()}
    whole = {"in all": weights + memory.total}
    for key, value in {"weights": weights, **by_type, **memory.as_dict(), **whole}.items():
        out.print(f"{key.replace('_', ' ')}: {value / 2**20:.1f} MiB")
    return {
        "weights": weights,
        "weights_by_type": types,
        "memory": memory.as_dict(),
        "parameters": parameters,
        "steps": experiment.max_steps,
        "examples": data,
    }


def train(
    config: Config, *, resume: bool = False, launcher: str = "none", repeats: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Train, fade, export, and return the summary that is also printed and written to WORK_DIR/summary.json.

    Args:
        resume: go on from the newest checkpoint of the work directory.
        launcher: what started this process: "none", or one of several that torchrun ("pytorch"), slurm or mpi did.
        repeats: the record of the run that this one repeats (`read_run`). What differs is said at the start.

    Returns:
        The summary; of several processes only the first has one, and the others return an empty one.

    Raises:
        MDPDError: the configuration, its data or weights cannot be used, and nothing has been written; or a loss
            is not finite (`NonFiniteLossError`), and the last good checkpoint is kept.
    """
    work_dir = Path(config.work_dir)
    check_writable(work_dir)
    export_dir = Path(config.export_dir or work_dir / "export")
    check_replaceable(export_dir)
    check_visualizer(config.visualizer)
    check_hooks(config)
    if config.train.compile:
        check_backend(config.train.compile)
        if config.parallel.shard:
            raise ConfigError("train.compile and parallel.shard do not go together here: remove one of them")
    coaches = Settings.from_dict(config.distill.to_dict()).coach is not None
    if coaches and launcher != "none":
        raise ConfigError(
            "a coach learns in one process here, and several were started: start one, or choose a method without a "
            "coach, such as distill.method='mdpd_low_rank'"
        )
    if config.parallel.shard and watches(config):
        raise ConfigError(
            "parallel.shard=True shares the weights out, and the best evaluation's cannot be kept then: set "
            "train.keep='last' and train.patience=None"
        )
    if config.parallel.shard and config.train.ema:
        raise ConfigError("parallel.shard=True shares the weights out, which train.ema cannot average: set it to None")
    if config.parallel.shard and launcher == "none":
        raise ConfigError(
            "parallel.shard=True shares the frozen weights out over several processes, and this is a single one: "
            "start them with torchrun --nproc-per-node N tools/train.py CONFIG --launcher pytorch"
        )
    # A run that was ended while its coach learned has no checkpoint of its own yet.
    checkpoint = latest_checkpoint(work_dir) if resume and (checkpoints(work_dir) or not has_begun(work_dir)) else None
    # Before processes join: the figure is of a step that one process takes alone.
    memory = {} if launcher == "none" else _planned_alone(config)
    with ExitStack() as held:  # what no second run may have until this one's export is there
        with joined(launcher):
            first, coach = is_main_process(), None
            parts = open_parts(config)
            if first:
                data = described(config, parts)
                _announce(parts, data)
            if coaches:
                held.enter_context(locked(work_dir))
                coach = coached(config, parts, resume=resume)
            experiment = build_experiment(config, parts=parts, taught=coach.outputs if coach else None)
            if launcher == "none":
                memory = step_bytes(experiment)
            if checkpoint is not None:
                load_run(experiment, checkpoint)
            if first:
                if not coaches:
                    held.enter_context(locked(work_dir))
                clear_leftovers(work_dir, keep_checkpoints=resume)
                record = begin_record(config, parts, checkpoint)
                if repeats is not None:
                    _say(repetition(repeats, record))
            runner = build_runner(experiment, checkpoint, launcher)
            runner.logger.warning(_origin_lines(parts))
            if first:
                runner.logger.info("\n".join([*description_lines(data), *(coach_lines(coach.about) if coach else [])]))
            with advised(config, memory), compiled(experiment.distiller, config.train.compile):
                metrics = run_to_the_end(runner)
            if config.parallel.shard:
                memory = {**memory, **weights_held(runner)}
                state = whole_state(experiment.distiller)
            if not first:
                return {}
        if config.train.keep == "best":
            load_best(experiment, work_dir)
        measured = config.parallel.shard or _measured(runner, experiment)
        if not measured or experiment.eval_loader is not experiment.val_loader:
            metrics = evaluate(experiment)
        if config.parallel.shard:
            experiment = _whole_again(experiment, state)
        about = coach.about if coach else {}
        summary = {**finish(experiment, metrics, export_dir, memory, data, about), **runner.spent}
        write_json(work_dir / "summary.json", summary)
        end_record(work_dir, record, experiment, summary)
    print_summary(summary)
    if repeats is not None:
        _say([came_out(repeats, work_dir)])
    return summary


def _whole_again(experiment: Experiment, state: dict[str, torch.Tensor]) -> Experiment:
    # FSDP has no way back: what was learned goes into a model that never was shared out.
    fresh = build_experiment(experiment.config)
    load_learned(fresh.distiller, state, "what was gathered")
    fresh.adapter.origin = experiment.adapter.origin
    return fresh


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


def _measured(runner: FadingRunner, experiment: Experiment) -> bool:
    """Whether the last evaluation was of the weights that are there now, and not of what a hook put in their place."""
    hook = next(h for h in runner.hooks if isinstance(h, MeasuredHook))
    return hook.measured == fingerprint(experiment.distiller)


def _best_hook(experiment: Experiment) -> BestHook:
    given = experiment.config.train
    return BestHook(experiment, keep=given.keep == "best", patience=given.patience)


def finish(
    experiment: Experiment,
    metrics: dict[str, float],
    export_dir: Path,
    memory: dict[str, int],
    examples: dict[str, Any],
    coach: dict[str, Any],
) -> dict[str, Any]:
    """Fade, export with a card, and return the summary.

    Args:
        coach: what is known of the coach, if one taught.

    Raises:
        CheckpointError: the export, loaded once more, is not the model that was trained; nothing has its name then.
    """
    config, adapter = experiment.config, experiment.adapter
    parameters, paths = parameters_of(experiment), paths_of(experiment)
    batch = first_batch(experiment.eval_loader)["inputs"]
    inputs = {k: v[:COMPARED].to(adapter.device) for k, v in batch.items()}
    _, report = fade(experiment.distiller, inputs)
    if torch.cuda.is_available():
        memory = {**memory, "cuda_peak": torch.cuda.max_memory_allocated()}
    summary = {
        "backbone": adapter.name,
        "zoo": adapter.zoo,
        "method": config.distill.get("method", "mdpd"),
        "metrics": metrics,
        "paths": paths,
        "by_class": _by_class(experiment),
        "eval_split": config.data.eval_split,
        "parameters": parameters,
        "memory": memory,
        "fading": report.as_dict(),
        "weights": adapter.origin,
        "data": experiment.source.description,
        "examples": examples,
        "coach": coach,
        "classes": list(experiment.task.classes),
        "steps": int(experiment.distiller.step),
        "seed": config.train.seed,
        "export": str(export_dir),
        "load_with": adapter.load_with,
        "usage": getattr(adapter, "usage", ""),  # where the zoo's loader alone gives no logits
    }
    with fresh_folder(export_dir) as folder:
        adapter.write(folder)
        about = {key: summary[key] for key in ("metrics", "eval_split", "method")}
        columns = dict(experiment.source.columns)
        record_of(adapter, max_length=config.data.max_length, columns=columns, **about).write(folder)
        write_card(folder, summary)
        check_reloads(folder, export_dir, adapter, inputs, _examples(experiment))
    return summary


def _by_class(experiment: Experiment) -> dict[str, Any]:
    """Scores of each class by the deployed path, of the last evaluation."""
    found = experiment.metric.evaluated
    if not found:
        return {}
    path = "side" if experiment.distiller.settings.backbone_update == "none" and "side" in found[0] else "backbone"
    logits, labels = (torch.stack([sample[key] for sample in found]) for key in (path, "label"))
    return by_class(experiment.task.kind, logits, labels, experiment.task.classes)


def _examples(experiment: Experiment) -> list[Any] | None:
    """The samples that fading compared, as they came; a language model's are no examples but blocks of them."""
    if experiment.task.kind == Language.kind:
        return None
    indices = next(iter(experiment.eval_loader.batch_sampler))[:COMPARED]  # type: ignore[arg-type]
    return [experiment.eval_source[i][0] for i in indices]


def export_work_dir(work_dir: str | Path, out: str | Path, *, checkpoint: str | Path | None = None) -> Path:
    """Fade a checkpoint of a work directory and export it to `out`. The work directory stays as it is.

    Args:
        checkpoint: one of the directory's files; by default what the run itself exports: the newest iter_N.pth, or the
            best evaluation's weights with train.keep="best".

    Raises:
        ConfigError: the folder holds no run of this project, or `out` is in use.
        CheckpointError: the checkpoint does not exist, is not what this run wrote, or does not fit the run's config.
    """
    work_dir, out = Path(work_dir), Path(out)
    config = config_of_work_dir(work_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{str(out)!r} exists and is not empty: give a folder that does not exist yet")
    experiment = build_experiment(config)
    state = exported_state(experiment, work_dir, checkpoint)
    load_learned(experiment.distiller, state, repr(str(checkpoint or work_dir)))
    memory = read_summary(work_dir).get("memory", {})
    about = read_coach(work_dir) if experiment.distiller.settings.coach else {}
    print_summary(finish(experiment, evaluate(experiment), out, memory, described(config, experiment.parts), about))
    return out


def evaluate(experiment: Experiment) -> dict[str, float]:
    """Metrics of both paths on the split that `data.eval_split` names."""
    results: list[dict] = []
    for data in experiment.eval_loader:
        results += experiment.distiller.val_step({k: data[k] for k in ("inputs", "labels")})
    return experiment.metric.compute_metrics(results)


def check_writable(work_dir: Path) -> None:
    """Prove that `work_dir` can be made and written, and leave no trace of the attempt.

    Raises:
        ConfigError: it cannot.
    """
    missing = [p for p in (work_dir, *work_dir.parents) if not p.exists()]
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            pass
    except OSError as error:
        raise ConfigError(
            f"work directory {str(work_dir)!r} cannot be written ({error.strerror}): give another with --work-dir"
        ) from error
    finally:
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def described(config: Config, parts: Parts) -> dict[str, Any]:
    """What the data holds, as the backbone is given it (`mdpd_plugins.data.describe`)."""
    adapter = parts.adapter
    more = {} if parts.unlabelled is None else {"unlabelled": parts.unlabelled}
    text = None if adapter.modality == "image" else adapter.text_transform()
    return describe(
        {"train": parts.train, **more, config.data.eval_split: parts.evaluated},
        transform=adapter.transform(),
        tokenizer=text.tokenizer if text else None,
        max_length=text.max_length if text else None,
        augment=config.data.augment,
        kind=parts.task.kind,
    )


def _announce(parts: Parts, data: dict[str, Any]) -> None:
    out = console(stderr=True)
    weights, *notice = _origin_lines(parts).splitlines()
    out.print(weights)
    for line in notice:
        out.print(line, style="bold red")
    for line in description_lines(data):
        out.print(line, style="bold yellow" if line.startswith("warning") else None, markup=False, highlight=False)


def _say(lines: Sequence[str]) -> None:
    out = console(stderr=True)
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _origin_lines(parts: Parts) -> str:
    # Two lines: those of more than one line go to the log's file, and the screen has seen them.
    origin = parts.adapter.origin
    return f"weights: {origin}\n{random_notice(origin)}"


def step_bytes(experiment: Experiment) -> dict[str, int]:
    """Bytes that a step holds (`StepMemory`), planned beforehand; none where the model's code cannot be planned."""
    try:
        return planned_step(experiment).as_dict()
    except PlanError:
        return {}


def _planned_alone(config: Config) -> dict[str, int]:
    experiment = build_experiment(config)
    try:
        return step_bytes(experiment)
    finally:
        del experiment


def parameters_of(experiment: Experiment) -> dict[str, int]:
    """How many parameters the backbone has, how many of them are trained, and how many the side network has."""
    return {
        "backbone": sum(p.numel() for p in experiment.adapter.parameters().values()),
        "backbone_trained": sum(p.numel() for p in experiment.distiller.trainable.values()),
        "side": sum(p.numel() for p in experiment.distiller.side_parameters()),
    }


def _last_metrics(runner: FadingRunner) -> dict[str, float]:
    scalars = runner.message_hub.log_scalars
    return {k[4:]: float(v.current()) for k, v in scalars.items() if k.startswith("val/") and "time" not in k}


__all__ = ["build_runner", "dry_run", "evaluate", "export_work_dir", "finish", "train"]
