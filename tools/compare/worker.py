"""One run of a sweep, in a process of its own: training and evaluation, and nothing else that `train` does.

What a sweep throws away is not made: validation while training, latencies, the export. What is the same for every
seed, the memory of a step, is measured where it is asked for.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mdpd_plugins.files import write_json
from mdpd_plugins.registry.errors import MDPDError
from mdpd_plugins.training.best import load_best, read_history
from mdpd_plugins.training.coach import coached, first_stage
from mdpd_plugins.training.compiling import compiled
from mdpd_plugins.training.config import load_config, read_overrides, settings_of
from mdpd_plugins.training.experiment import build_experiment, open_parts, watches
from mdpd_plugins.training.finishing import evaluate, parameters_of
from mdpd_plugins.training.running import build_runner, run_to_the_end
from mdpd_plugins.training.step_memory import step_bytes
from mdpd_plugins.training.two_opinions import paths_of
from tools.compare.fixmatch import METHOD, load_fixmatch

RESULT = "result.json"


def work(config: str, overrides: Sequence[str], measure: bool, folder: str, log: str) -> None:
    """Entry point of the process: leaves FOLDER/result.json; or exits with 2 for an error the user can mend, else 1.

    Args:
        config: a config file. overrides: `--cfg-options`.
        measure: also count what a step holds.
        folder: an existing folder for this run alone.
        log: the file that everything printed goes to, also by libraries written in C.
    """
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # One thread: sums are then the same whatever runs beside this, and CPU time is what the run alone would take.
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        if METHOD in overrides:
            # What a step holds is planned from the batch as it is before the hook adds to it.
            loaded, measure = load_fixmatch(config, overrides), False
        else:
            loaded = load_config(config, read_overrides(overrides))
        loaded.work_dir = folder
        write_json(Path(folder) / RESULT, run_once(loaded, measure=measure))
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        sys.exit(1)


def _end_with_the_sweep() -> None:
    # A sweep that is killed cannot end its runs any more.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def run_once(config: Config, *, measure: bool) -> dict[str, Any]:
    """Train and evaluate once; the part of a sweep's line that the run finds out.

    Raises:
        MDPDError: as `train`.
    """
    parts, start = open_parts(config), time.process_time()
    coach = coached(config, first_stage(config, parts), resume=False) if settings_of(config).coach else None
    spent = time.process_time() - start if coach else 0.0
    experiment = build_experiment(config, parts=parts, taught=coach.outputs if coach else None)
    memory = step_bytes(experiment) if measure else {}
    # After the last step, and only there, unless evaluations decide what is kept or when to stop.
    config.train.checkpoint_every = experiment.max_steps
    if not watches(config):
        config.train.val_every = experiment.max_steps
    runner = build_runner(experiment, None)
    with compiled(experiment.distiller, config.train.compile):
        metrics = run_to_the_end(runner)
    if config.train.keep == "best":
        load_best(experiment, Path(config.work_dir))
    if config.train.keep == "best" or experiment.eval_loader is not experiment.val_loader:
        metrics = evaluate(experiment)
    deploys = "side" if experiment.distiller.settings.backbone_update == "none" else "backbone"
    return {
        "metric": experiment.task.main_metric,
        "metrics": metrics,
        "paths": paths_of(experiment),
        "deploys": deploys,
        **runner.spent,
        "coach": {**coach.about, "cpu_seconds": spent} if coach else {},
        "steps": int(experiment.distiller.step),
        "evaluations": [[entry["step"], entry["score"]] for entry in read_history(Path(config.work_dir))],
        "parameters": parameters_of(experiment),
        "memory": memory,
        "weights": experiment.adapter.origin,
        "data": experiment.source.description,
        "device": get_device(),
    }


__all__ = ["RESULT", "run_once", "work"]
