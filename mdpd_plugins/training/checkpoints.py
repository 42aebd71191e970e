"""A work directory's checkpoints: which is the newest, does it fit, and what an earlier run left behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.adapters.storage.checkpoint import check_keys, read_state_dict
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.training.experiment import Experiment

EARLIER = "previous"
REFUSED = "nonfinite_"


def checkpoints(work_dir: str | Path) -> list[Path]:
    """The complete `iter_*.pth` of a work directory, oldest first."""
    found = [p for p in Path(work_dir).glob("iter_*.pth") if p.stem[5:].isdigit()]
    return sorted(found, key=lambda p: int(p.stem[5:]))


def latest_checkpoint(work_dir: str | Path) -> Path:
    """The newest complete checkpoint.

    Raises:
        ConfigError: there is none.
    """
    found = checkpoints(work_dir)
    if not found:
        raise ConfigError(
            f"there is nothing to resume or export in {str(work_dir)!r}: it holds no iter_*.pth. Check the work "
            f"directory, or train without --resume"
        )
    return found[-1]


def load_weights_alone(experiment: Experiment, checkpoint: Path) -> dict[str, torch.Tensor]:
    """The state of `experiment.distiller` in any file of its run, checked before anything is changed.

    Raises:
        CheckpointError: the file is missing, holds pickled code, or belongs to another configuration.
    """
    state, own = read_state_dict(checkpoint), experiment.distiller.state_dict()
    check_keys(
        f"{str(checkpoint)!r}",
        f"this configuration's {experiment.config.backbone.name}",
        [k for k in own if k not in state],
        [k for k in state if k not in own],
        [k for k in own if k in state and own[k].shape != state[k].shape],
    )
    return state


def load_run(experiment: Experiment, checkpoint: Path) -> dict[str, torch.Tensor]:
    """The state of `experiment.distiller` in a run's checkpoint, checked before anything is written or changed.

    The backbone's weights are from now on said to come from where the run took them, not from where they were
    found when the experiment was built: a hub may have appeared or gone since.

    Raises:
        CheckpointError: the file holds pickled code or is no run's, or it belongs to another configuration.
    """
    state = load_weights_alone(experiment, checkpoint)
    run: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    wanted = {name: _sizes(wrapper.state_dict()) for name, wrapper in experiment.optim.items()}
    try:
        found = {name: _sizes(saved) for name, saved in run["optimizer"].items()}
        origin = run["meta"]["weights"]
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{str(checkpoint)!r} is no checkpoint of a training run ({error} is missing): remove it"
        ) from error
    if found != wanted:
        raise CheckpointError(
            f"{str(checkpoint)!r} was written by a run that trained other parameters: resume with the settings in "
            f"{checkpoint.parent / 'config.py'}, or start anew with another --work-dir"
        )
    experiment.adapter.origin = origin
    return state


def _sizes(state: dict[str, Any]) -> list[int]:
    return [len(group["params"]) for group in state["param_groups"]]


def clear_leftovers(work_dir: Path, *, keep_checkpoints: bool) -> None:
    """Remove what a killed run half wrote; set its checkpoints aside if this run does not go on from them.

    Otherwise `--resume` could later pick a checkpoint of the run before, whose step count was higher.
    """
    for leftover in [*work_dir.glob(".iter_*.pth.part"), *work_dir.glob(".*.json.part")]:
        leftover.unlink()
    for leftover in work_dir.glob(".export.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    found = checkpoints(work_dir)
    if found and not keep_checkpoints:
        aside = work_dir / EARLIER
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for path in found:
            path.rename(aside / path.name)


def refuse_last(work_dir: Path, steps: int) -> str:
    """After a non-finite loss: what can be resumed, in a phrase.

    The checkpoint of the step just before holds the very weights that gave that loss. It is renamed if there is
    an older one, which is then the last good one.
    """
    found = checkpoints(work_dir)
    if len(found) > 1 and found[-1].name == f"iter_{steps}.pth":
        refused = found.pop()
        os.replace(refused, refused.with_name(REFUSED + refused.name))
    if not found:
        return "no checkpoint had been written yet"
    return f"--resume goes on from {found[-1]}"


__all__ = ["checkpoints", "clear_leftovers", "latest_checkpoint", "load_run", "load_weights_alone", "refuse_last"]
