"""The best evaluation of a run: its weights are kept, and training may stop when none gets better."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from mdpd_plugins.adapters.storage.checkpoint import read_state_dict
from mdpd_plugins.engine.learned import learned, load_learned
from mdpd_plugins.files import fresh_file, read_signed, sha256, write_signed
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.tasks.scores import signed
from mdpd_plugins.training.checkpoints import (
    check_file,
    checkpoints,
    latest_checkpoint,
    load_run,
    load_weights_alone,
)
from mdpd_plugins.training.experiment import Experiment
from mdpd_plugins.training.run_record import check_run, meta_of, run_name

HISTORY_FILE = "evaluations.json"
EVALUATIONS = "evaluations"  # in the meta of a checkpoint


def main_score(experiment: Experiment, metrics: dict[str, float]) -> float:
    """The task's main metric of the deployed path, signed so that more is better; -inf if it is not a number."""
    path = "side" if experiment.distiller.settings.backbone_update == "none" else "backbone"
    value = metrics[f"{path}/{experiment.task.main_metric}"]
    return -math.inf if math.isnan(value) else signed(experiment.task.main_metric, value)


class BestHook(Hook):
    """Keeps what every evaluation found in evaluations.json, and the weights of the best one in best_STEP.pth.

    A file of weights goes when a better one is there and no checkpoint is older than that: a resume can then come back
    to no evaluation whose weights are gone. A checkpoint holds the evaluations before it: none is lost unnoticed.

    Args:
        keep: keep weights. patience: stop after this many evaluations without a better one; None never does.
    """

    priority = "LOW"

    def __init__(self, experiment: Experiment, *, keep: bool, patience: int | None):
        self.experiment, self.keep, self.patience = experiment, keep, patience
        self.history: list[dict[str, Any]] = []
        self.known: list[dict[str, Any]] = []

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """What evaluations.json has to hold."""
        self.known = checkpoint["meta"].get(EVALUATIONS, [])

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Say what had been found."""
        checkpoint["meta"][EVALUATIONS] = [dict(entry) for entry in self.history]

    def before_train(self, runner) -> None:
        """After a resume: what was found up to here counts, and an evaluation that a kill cut off is made up for."""
        folder, step = Path(runner.work_dir), runner.iter
        self.run = run_name(folder)
        if step:
            _check_history(folder, self.known)
        self.history = [entry for entry in read_history(folder) if 0 < entry["step"] <= step]
        if not step:
            for file in folder.glob("best_*.pth"):
                file.unlink()
        elif step % runner.train_loop.val_interval == 0 and step not in [entry["step"] for entry in self.history]:
            runner.val_loop.run()
        self._stop_if_due(runner)

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Keep what was found."""
        assert metrics is not None
        step, folder = runner.iter, Path(runner.work_dir)
        score = main_score(self.experiment, metrics)
        better = not self.history or score > max(entry["score"] for entry in self.history)
        self.history.append({"step": step, "score": score})
        if better and self.keep:
            with fresh_file(folder / f"best_{step}.pth") as temporary:
                with temporary.open("wb") as file:  # given a name, PyTorch writes that into the file
                    torch.save(learned(self.experiment.distiller), file)
                self.history[-1]["sum"] = sha256(temporary)
        write_signed(folder / HISTORY_FILE, {"run": self.run, "evaluations": self.history})
        self._clear(folder)
        self._stop_if_due(runner)

    def _clear(self, folder: Path) -> None:
        oldest = min((int(p.stem[5:]) for p in checkpoints(folder)), default=0)
        # The newest that every checkpoint comes after has to stay, and all that came later.
        kept = [entry["step"] for entry in self.history if (folder / f"best_{entry['step']}.pth").is_file()]
        for step in kept:
            if any(step < other <= oldest for other in kept):
                (folder / f"best_{step}.pth").unlink()

    def _stop_if_due(self, runner) -> None:
        if self.patience is None or not self.history:
            return
        best = max(self.history, key=lambda entry: entry["score"])  # of equals the first
        if len(self.history) - 1 - self.history.index(best) >= self.patience:
            runner.train_loop.stop_training = True


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of a work directory, oldest first: {"step", "score"}, and "sum", the SHA-256 of weights kept.

    Raises:
        ConfigError: the file is damaged.
    """
    return _read_history(folder)[1]


def _read_history(folder: Path) -> tuple[str | None, list[dict[str, Any]]]:
    """The run that a work directory's evaluations are of, as they say, and the evaluations."""
    path = folder / HISTORY_FILE
    if not path.is_file():
        return None, []
    try:
        content = read_signed(path)
        return content.get("run"), [
            {"step": int(entry["step"]), "score": float(entry["score"])}
            | ({"sum": str(entry["sum"])} if "sum" in entry else {})
            for entry in content["evaluations"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{str(path)!r} is damaged ({error}): put it back, or train without --resume") from error


def _check_history(folder: Path, known: list[dict[str, Any]]) -> None:
    """Compare a work directory's evaluations with its run, and with what a checkpoint of it knows of them."""
    path, (run, history) = folder / HISTORY_FILE, _read_history(folder)
    if history:
        check_run(folder, path, run)
    if lost := [str(entry["step"]) for entry in known if entry not in history]:
        raise CheckpointError(
            f"{str(path)!r} is missing or older than the checkpoints beside it: they know of an evaluation after step "
            f"{' and '.join(lost)}, which may be the best. Put it back, or train without --resume"
        )


def _sums_of_evaluations(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of the weights of evaluations that a run kept.

    Raises:
        ConfigError: the evaluations are damaged. CheckpointError: they are of another run.
    """
    _check_history(folder, [])
    return {f"best_{entry['step']}.pth": entry["sum"] for entry in read_history(folder) if "sum" in entry}


def best_weights(folder: Path) -> Path:
    """The weights of the best evaluation of a work directory, whose newest checkpoint is whole.

    Raises:
        ConfigError: there are none.
        CheckpointError: they are gone, or are not what the run wrote; or evaluations are.
    """
    newest = checkpoints(folder)[-1:]
    _check_history(folder, meta_of(newest[0]).get(EVALUATIONS, []) if newest else [])
    history = read_history(folder)
    kept = [e for e in history if "sum" in e or (folder / f"best_{e['step']}.pth").is_file()]
    if not kept:
        raise ConfigError(
            f"{str(folder)!r} holds no best_*.pth that {HISTORY_FILE} tells of: it was trained without "
            f"train.keep='best', or one of them is gone"
        )
    best = max(kept, key=lambda entry: entry["score"])  # of equals the first
    path = folder / f"best_{best['step']}.pth"
    if not path.is_file():
        raise CheckpointError(f"the best evaluation's weights, {str(path)!r}, are missing: put them back")
    if "sum" in best and sha256(path) != best["sum"]:
        raise CheckpointError(f"{str(path)!r} is not what this run wrote (damaged, or of another run): put it back")
    return path


def exported_state(experiment: Experiment, work_dir: Path, checkpoint: str | Path | None) -> dict[str, torch.Tensor]:
    """The state of `experiment.distiller` that a work directory exports, checked. Nothing is changed.

    Args:
        checkpoint: one of the directory's files; None for what the run itself exports: the newest iter_N.pth, or the
            best evaluation's weights with train.keep="best".

    Raises:
        ConfigError: the folder holds no run with a checkpoint.
        CheckpointError: it does not exist, is not what this run wrote, or does not fit the run's config.
    """
    newest = latest_checkpoint(work_dir)
    state = load_run(experiment, newest, resuming=False)  # where its weights came from
    if checkpoint is None:
        checkpoint = best_weights(work_dir) if experiment.config.train.keep == "best" else newest
    elif Path(checkpoint) != newest:
        check_file(work_dir, Path(checkpoint), _sums_of_evaluations(work_dir))
    return state if Path(checkpoint) == newest else load_weights_alone(experiment, Path(checkpoint))


def load_best(experiment: Experiment, folder: Path) -> None:
    """Put the weights of the best evaluation into an experiment."""
    path = best_weights(folder)
    load_learned(experiment.distiller, read_state_dict(path), repr(str(path)))


__all__ = [
    "HISTORY_FILE",
    "BestHook",
    "best_weights",
    "exported_state",
    "load_best",
    "main_score",
    "read_history",
]
