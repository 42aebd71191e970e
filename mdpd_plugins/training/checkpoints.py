"""A work directory's checkpoints: which is the newest, does it fit, and what an earlier run left behind.

`iter_N.pth` holds what was learned, and `optimizer_N.pth` beside it what a resume alone needs: the optimisers' moments,
twice as large. The former knows the latter by its SHA-256.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.adapters.storage.checkpoint import read_state_dict
from mdpd_plugins.engine.learned import check_learned
from mdpd_plugins.files import LEFTOVERS, read_signed, sha256, write_json, write_signed
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.training.averaging import RAW
from mdpd_plugins.training.experiment import Experiment
from mdpd_plugins.training.run_record import RUN_FILE, check_run

SUMMARY_FILE = "summary.json"
SUMS = "checkpoints.json"  # name of a checkpoint -> its SHA-256
EARLIER = "previous"
OPTIMIZER = "optimizer"  # in a checkpoint's "meta": the SHA-256 of the file beside it
REFUSED = "nonfinite_"
NOTES = logging.getLogger(__name__)


def checkpoints(work_dir: str | Path) -> list[Path]:
    """The complete `iter_*.pth` of a work directory, oldest first."""
    found = [p for p in Path(work_dir).glob("iter_*.pth") if p.stem[5:].isdigit()]
    return sorted(found, key=lambda p: int(p.stem[5:]))


def optimizer_file(checkpoint: Path) -> Path:
    """Where the optimisers' state of an `iter_N.pth` lies."""
    return checkpoint.with_name(f"optimizer_{checkpoint.stem[5:]}.pth")


def read_run(checkpoint: Path) -> dict[str, Any]:
    """All that a resume needs, memory-mapped: a checkpoint with the optimisers' state as "optimizer".

    Raises:
        CheckpointError: that state is missing, or is not what the checkpoint was written with.
    """
    run: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    if (known := run.get("meta", {}).get(OPTIMIZER)) is None:
        return run  # written by an older version, with everything in it
    path = optimizer_file(checkpoint)
    if not path.is_file() or sha256(path) != known:
        raise CheckpointError(
            f"{str(path)!r} is missing, damaged, or of another run, and nothing goes on from {checkpoint.name} without "
            f"it: put it back, or train without --resume. What was learned can still be exported"
        )
    return {**run, "optimizer": torch.load(path, map_location="cpu", weights_only=True, mmap=True)}


def clear_optimizers(work_dir: Path) -> None:
    """Remove the optimisers' state of checkpoints that are no longer there."""
    kept = {optimizer_file(checkpoint) for checkpoint in checkpoints(work_dir)}
    for path in work_dir.glob("optimizer_*.pth"):
        if path not in kept:
            path.unlink()


def write_summary(work_dir: Path, run: str, summary: Mapping[str, Any]) -> None:
    """summary.json: what a run ended with, its name, the last step, and the sum of what this part of it logged.

    The step of `summary` is that of the best evaluation where that is kept.
    """
    last = max((int(p.stem[5:]) for p in checkpoints(work_dir)), default=summary["steps"])
    newest = sorted(work_dir.glob("*/vis_data/scalars.json"))[-1:]
    logged = {path.relative_to(work_dir).as_posix(): sha256(path) for path in newest}
    write_signed(work_dir / SUMMARY_FILE, {"run": run, "last": last, "logged": logged, **summary})


def read_summary(work_dir: Path) -> dict[str, Any]:
    """summary.json of a work directory; empty where there is none, as of a run that has not finished.

    Raises:
        ConfigError: it is damaged.
        CheckpointError: it is of another run.
    """
    path = work_dir / SUMMARY_FILE
    if not path.exists():
        return {}
    try:
        found = read_signed(path)
        if not isinstance(found.get("memory", {}), dict):
            raise ValueError("it holds no summary of a run")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{str(path)!r} is damaged ({error}): remove it to go on without what it says of the run's memory and time"
        ) from error
    if "run" in found:  # those from before say nothing
        check_run(work_dir, path, found.pop("run"))
    return found


def latest_checkpoint(work_dir: str | Path) -> Path:
    """The newest complete checkpoint, and no other than this run wrote.

    Raises:
        ConfigError: there is none.
        CheckpointError: the newest is gone, was damaged, or was put here by something else; or the sums are damaged.
    """
    work_dir = Path(work_dir)
    sums = _read_sums(work_dir)
    if sums:
        return _checked(work_dir, sums)
    found = checkpoints(work_dir)
    if found:
        NOTES.warning(f"note: {work_dir} was written before checkpoints were signed, so damage to them is not noticed")
    if not found:
        raise ConfigError(
            f"there is nothing to resume or export in {str(work_dir)!r}: it holds no iter_*.pth. Check the work "
            f"directory, or train without --resume"
        )
    return found[-1]


def add_sum(written: Path, checkpoint: Path) -> None:
    """Sign a checkpoint that has been written under a temporary name, before it gets its own.

    So a kill between the two leaves the sum and the temporary file, and `latest_checkpoint` finds both; what has no
    sum is not this run's.
    """
    work_dir = checkpoint.parent
    known = _read_sums(work_dir)
    kept = {p.name: known.get(p.name) or sha256(p) for p in checkpoints(work_dir)}
    write_json(work_dir / SUMS, {**kept, checkpoint.name: sha256(written)})


def _read_sums(work_dir: Path) -> dict[str, str]:
    path = work_dir / SUMS
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names_only = isinstance(found, dict) and all(re.fullmatch(r"iter_\d+\.pth", name) for name in found)
        if not names_only or not found or not all(isinstance(value, str) for value in found.values()):
            raise ValueError("it holds no sums of iter_*.pth")
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{str(path)!r} is damaged ({error}), so the checkpoints beside it cannot be checked: put it back, or "
            f"remove it to go on from the newest of them unchecked"
        ) from error
    return found


def _checked(work_dir: Path, sums: dict[str, str]) -> Path:
    name = max([*sums, *(p.name for p in checkpoints(work_dir))], key=lambda name: int(name[5:-4]))
    newest = work_dir / name
    unchecked = f"or remove {str(work_dir / SUMS)!r} as well to go on from what is left, unchecked"
    if name not in sums:
        raise CheckpointError(f"{str(newest)!r} was not written by this run ({SUMS} does not know it): remove it")
    if not newest.is_file():
        # A kill came when it was whole and signed, and had not got its name yet.
        for leftover in work_dir.glob(f".{newest.stem}{LEFTOVERS}"):
            if sha256(leftover) == sums[name]:
                _link(leftover, newest)
                return newest
        raise CheckpointError(f"the newest checkpoint, {str(newest)!r}, is missing: put it back, {unchecked}")
    if sha256(newest) != sums[name]:
        raise CheckpointError(
            f"{str(newest)!r} is not what this run wrote (damaged, or of another run): put the right one back; or "
            f"remove it and {str(work_dir / SUMS)!r} to go on from what is left, unchecked"
        )
    return newest


def check_file(work_dir: Path, file: Path, others: Mapping[str, str]) -> None:
    """Compare any file of weights that somebody names with what the run of a work directory wrote.

    Args:
        others: name -> SHA-256 of what the run keeps besides its checkpoints.

    Raises:
        CheckpointError: it is missing, is not what a run wrote under that name, or another run wrote it.
    """
    if not file.is_file():
        names = [p.name for p in [*checkpoints(work_dir), *sorted(work_dir.glob("best_*.pth"))]]
        raise CheckpointError(f"checkpoint {str(file)!r} does not exist; {str(work_dir)!r} has {', '.join(names)}")
    own = file.absolute().parent == work_dir.absolute()
    known = {**_read_sums(file.parent), **(others if own else {})}
    if file.name not in known:
        NOTES.warning(f"note: nothing says what {file} held when it was written, so damage to it is not noticed")
    elif sha256(file) != known[file.name]:
        raise CheckpointError(
            f"{str(file)!r} is not what its run wrote (damaged, or of another run): put the right one back, or name "
            f"another with --checkpoint"
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception:
        return  # whoever reads the weights says what is wrong with it
    if isinstance(content, dict) and isinstance(meta := content.get("meta"), dict):
        check_run(work_dir, file, meta.get("run"))


def _link(leftover: Path, newest: Path) -> None:
    try:
        os.link(leftover, newest)  # a training that is just renaming it does not lose it
    except OSError:  # a file system without links
        os.replace(leftover, newest)


def load_weights_alone(experiment: Experiment, checkpoint: Path) -> dict[str, torch.Tensor]:
    """What a run had learned, in any file of it, checked before anything is changed (see `engine.learned`).

    Raises:
        CheckpointError: the file is missing, holds pickled code, or belongs to another configuration or to other
            frozen weights.
    """
    state = read_state_dict(checkpoint)
    check_learned(experiment.distiller, state, repr(str(checkpoint)))
    return state


def load_run(experiment: Experiment, checkpoint: Path, *, resuming: bool = True) -> dict[str, torch.Tensor]:
    """What a run had learned, in a checkpoint of it, checked before anything is written or changed.

    The backbone's weights are from now on said to come from where the run took them, not from where they were
    found when the experiment was built: a hub may have appeared or gone since.

    Args:
        resuming: whether the run goes on from there, so that the optimisers' state counts, too.

    Raises:
        CheckpointError: the file holds pickled code or is no run's, or it belongs to another run, configuration or
            frozen weights.
    """
    state = load_weights_alone(experiment, checkpoint)
    run: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    try:
        meta = run["meta"]
        origin = meta["weights"]
    except (KeyError, TypeError) as error:
        raise _no_checkpoint(checkpoint, error) from error
    check_run(checkpoint.parent, checkpoint, meta.get("run"))
    if resuming:
        _check_optimizers(experiment, checkpoint)
    if (RAW in run) != bool(experiment.config.train.ema):
        how = "with" if RAW in run else "without"
        raise CheckpointError(
            f"{str(checkpoint)!r} was written {how} train.ema: resume with the settings in "
            f"{checkpoint.parent / 'config.py'}, or start anew with another --work-dir"
        )
    experiment.adapter.origin = origin
    return state


def _check_optimizers(experiment: Experiment, checkpoint: Path) -> None:
    run, wanted = read_run(checkpoint), {name: _form(w.state_dict()) for name, w in experiment.optim.items()}
    try:
        found = {name: _form(saved) for name, saved in run["optimizer"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_checkpoint(checkpoint, error) from error
    if found != wanted:
        raise CheckpointError(
            f"{str(checkpoint)!r} was written by a run that trained other parameters, or with another optimiser: "
            f"resume with the settings in {checkpoint.parent / 'config.py'}, or start anew with another --work-dir"
        )


def _no_checkpoint(checkpoint: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{str(checkpoint)!r} is no checkpoint of a training run ({error} is missing): remove it")


def _form(state: dict[str, Any]) -> tuple[list[int], str]:
    """How many parameters each group has, and the optimiser's name (files of older versions do not say: AdamW)."""
    return [len(group["params"]) for group in state["param_groups"]], state.get("type", "AdamW")


def clear_leftovers(work_dir: Path, *, keep_checkpoints: bool) -> None:
    """Remove what a killed run half wrote; set its checkpoints aside if this run does not go on from them.

    Otherwise `--resume` could later pick a checkpoint of the run before, whose step count was higher.
    """
    for leftover in work_dir.glob(LEFTOVERS):
        leftover.unlink()
    for leftover in work_dir.glob(".export.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    clear_optimizers(work_dir)
    found = checkpoints(work_dir)
    if found and not keep_checkpoints:
        aside = work_dir / EARLIER
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for path in [*found, *map(optimizer_file, found), work_dir / SUMS, work_dir / RUN_FILE]:
            if path.is_file():
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
        if left := {name: value for name, value in _read_sums(work_dir).items() if name != refused.name}:
            write_json(work_dir / SUMS, left)
    if not found:
        return "no checkpoint had been written yet"
    return f"--resume goes on from {found[-1]}"


__all__ = [
    "OPTIMIZER",
    "SUMMARY_FILE",
    "SUMS",
    "add_sum",
    "check_file",
    "checkpoints",
    "clear_leftovers",
    "clear_optimizers",
    "latest_checkpoint",
    "load_run",
    "load_weights_alone",
    "optimizer_file",
    "read_run",
    "read_summary",
    "refuse_last",
    "write_summary",
]
