"""Training, fading and export of one configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process

from mdpd_plugins.console import console
from mdpd_plugins.data import description_lines
from mdpd_plugins.engine.learned import load_learned
from mdpd_plugins.exports import check_replaceable
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.training.announcing import announce, described, origin_lines, say
from mdpd_plugins.training.averaging import check_hooks
from mdpd_plugins.training.best import load_best
from mdpd_plugins.training.card import print_summary
from mdpd_plugins.training.checkpoints import (
    checkpoints,
    clear_leftovers,
    latest_checkpoint,
    load_run,
    write_summary,
)
from mdpd_plugins.training.coach import coached, first_stage
from mdpd_plugins.training.coach_files import coach_lines, has_begun
from mdpd_plugins.training.compiling import check_backend, compiled
from mdpd_plugins.training.config import settings_of, without_feature_file
from mdpd_plugins.training.experiment import Experiment, build_experiment, first_batch, open_parts, watches
from mdpd_plugins.training.finishing import evaluate, finish, parameters_of
from mdpd_plugins.training.lock import locked
from mdpd_plugins.training.memory_advice import advised
from mdpd_plugins.training.parallel.processes import joined
from mdpd_plugins.training.parallel.sharding import weights_held, whole_state
from mdpd_plugins.training.run_record import (
    begin_record,
    came_out,
    end_record,
    record_now,
    repetition,
)
from mdpd_plugins.training.running import build_runner, measured, run_to_the_end
from mdpd_plugins.training.step_memory import (
    features_held,
    measure_evaluation,
    measure_step,
    run_bytes,
    step_bytes,
    weight_bytes,
    weights_by_type,
)
from mdpd_plugins.training.visualizers import check_visualizer


def dry_run(config: Config, *, repeats: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Build everything, run one step of each phase, report its memory; nothing is written.

    Args:
        repeats: as of `train`.
    """
    parts = open_parts(config)
    data = described(config, parts)
    announce(parts, data)
    if repeats is not None:
        say(repetition(repeats, record_now(config, parts)))
    experiment = build_experiment(without_feature_file(config), parts=parts)
    try:
        experiment.distiller.to(get_device())
        memory = measure_step(experiment, first_batch(experiment.train_loader))
        evaluation = measure_evaluation(experiment, first_batch(experiment.eval_loader))
        features = features_held(experiment)
        parameters, weights = parameters_of(experiment), weight_bytes(experiment)
    finally:
        experiment.distiller.drop_side()  # features that are kept in a file are let go
    out = console()
    out.print(f"one side step and one backbone step ran; {experiment.max_steps} steps would")
    out.print(f"trained parameters: {parameters['backbone_trained']:,} backbone, {parameters['side']:,} side")
    types = weights_by_type(experiment)
    by_type = {f"weights in {name}": size for name, size in types.items()}
    run = run_bytes(weights, memory, evaluation, features)
    stage = "the run after its coach's stage" if settings_of(config).coach else "the run"
    whole = {"in all": weights + memory.total, "evaluation, in all": weights + memory.between + evaluation, stage: run}
    for key, value in {"weights": weights, **by_type, **memory.as_dict(), **whole}.items():
        out.print(f"{key.replace('_', ' ')}: {value / 2**20:.1f} MiB")
    return {
        "weights": weights,
        "weights_by_type": types,
        "memory": memory.as_dict(),
        "evaluation": evaluation,
        "run": run,
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
    coaches = settings_of(config).coach is not None
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
                announce(parts, data)
            # Of a run with a coach this is the second stage: what is wrong with it is said before the first one begins.
            experiment = build_experiment(config, parts=parts, restorable=coaches)
            if launcher == "none":
                memory = step_bytes(experiment)
            if coaches:
                experiment.distiller.close()
                stage = first_stage(config, parts)
                held.enter_context(locked(work_dir))
                if not resume:  # the run's name is in all that the coach keeps
                    clear_leftovers(work_dir, keep_checkpoints=False)
                    record = begin_record(config, parts, None, resume=False)
                coach = coached(config, stage, resume=resume)
                experiment = build_experiment(config, parts=parts, taught=coach.outputs)
            held.callback(experiment.distiller.drop_side)  # after an error, features that are kept in a file are let go
            if checkpoint is not None:
                load_run(experiment, checkpoint)
            if first:
                if not coaches:
                    held.enter_context(locked(work_dir))
                if resume or not coaches:
                    clear_leftovers(work_dir, keep_checkpoints=resume)
                    record = begin_record(config, parts, checkpoint, resume=resume)
                if repeats is not None:
                    say(repetition(repeats, record))
            runner = build_runner(experiment, checkpoint, launcher)
            runner.logger.warning(origin_lines(parts))
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
        as_measured = config.parallel.shard or measured(runner, experiment)
        if not as_measured or experiment.eval_loader is not experiment.val_loader:
            metrics = evaluate(experiment)
        if config.parallel.shard:
            experiment = _whole_again(experiment, state)
        about = coach.about if coach else {}
        summary = {**finish(experiment, metrics, export_dir, memory, data, about), **runner.spent}
        write_summary(work_dir, record["run"], summary)
        end_record(work_dir, record, experiment, summary)
    print_summary(summary)
    if repeats is not None:
        say([came_out(repeats, work_dir)])
    return summary


def _whole_again(experiment: Experiment, state: dict[str, torch.Tensor]) -> Experiment:
    # FSDP has no way back: what was learned goes into a model that never was shared out.
    fresh = build_experiment(experiment.config)
    load_learned(fresh.distiller, state, "what was gathered")
    fresh.adapter.origin = experiment.adapter.origin
    return fresh


WRITTEN = (".json", ".py", ".pth")
"""Ends of the names of a work directory's files."""


def check_writable(work_dir: Path) -> None:
    """Prove that `work_dir` can be made and written, and leave no trace of the attempt.

    Raises:
        ConfigError: it cannot, or a folder has the name of a file that a run writes.
    """
    if work_dir.is_dir():
        for path in sorted(work_dir.iterdir()):
            if path.is_dir() and (path.suffix in WRITTEN or path.name == "last_checkpoint"):
                raise ConfigError(
                    f"{str(path)!r} is a folder, and a run writes a file of that name: move it away, or give another "
                    f"--work-dir"
                )
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


def _planned_alone(config: Config) -> dict[str, int]:
    experiment = build_experiment(config)
    try:
        return step_bytes(experiment)
    finally:
        del experiment


__all__ = ["dry_run", "train"]
