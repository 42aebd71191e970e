"""What a work directory says of its run: configuration, newest checkpoint, summary, and the logged scalars."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mdpd_plugins.files import sha256
from mdpd_plugins.registry.errors import CheckpointError, ConfigError
from mdpd_plugins.training.checkpoints import SUMMARY_FILE, checkpoints, latest_checkpoint, read_summary
from mdpd_plugins.training.run_record import RUN_FILE, config_of_work_dir, read_run

Points = list[tuple[int, float]]
# mmengine's Runner writes this line where it goes on from a checkpoint, and none where it starts anew.
RESUMED = re.compile(r"resumed epoch: \d+, iter: (\d+)")


@dataclass(frozen=True)
class Scalars:
    """Logged values by name, each a list of (step, value) in step order.

    Attributes:
        losses: what a training step logs, such as "side/imitation_0"; means over `train.log_every` steps.
        metrics: what a validation logs, such as "backbone/accuracy".
        segments: how many times the run was started, the resumes counted.
    """

    losses: dict[str, Points] = field(default_factory=dict)
    metrics: dict[str, Points] = field(default_factory=dict)
    segments: int = 0


@dataclass(frozen=True)
class Record:
    """A run as its work directory tells it.

    Attributes:
        work_dir: where it lies. config: the run's complete configuration. checkpoint: the newest. step: of it.
        summary: summary.json, or empty while the run that wrote the checkpoint has not finished.
        scalars: what mmengine logged.
    """

    work_dir: Path
    config: Config
    checkpoint: Path
    step: int
    summary: dict[str, Any]
    scalars: Scalars


def read_record(work_dir: Path) -> Record:
    """Read a work directory. Nothing in it is changed.

    Raises:
        ConfigError: the folder is none, or holds no configuration or no checkpoint of a run; or the configuration is
            not what the run wrote.
        CheckpointError: the newest checkpoint, the summary, or what was logged is missing or is not what the run wrote.
    """
    if not work_dir.is_dir():
        raise ConfigError(f"work directory {str(work_dir)!r} does not exist: give the one that training printed")
    config = config_of_work_dir(work_dir)
    if not checkpoints(work_dir):
        raise ConfigError(
            f"{str(work_dir)!r} holds no iter_*.pth yet: a report shows what a checkpoint has learned. Wait for the "
            f"first one (train.checkpoint_every steps, once an epoch by default), or train"
        )
    checkpoint = latest_checkpoint(work_dir)
    step = int(checkpoint.stem[5:])
    summary = read_summary(work_dir)
    # An earlier run's summary stays until the next one finishes.
    summary = summary if summary.get("last", summary.get("steps")) == step else {}
    again = "put it back, or let `mdpd train CONFIG --resume` come to the end once more"
    if not summary and (work_dir / RUN_FILE).exists() and "result" in read_run(work_dir):
        raise CheckpointError(f"{str(work_dir / SUMMARY_FILE)!r} is missing, and this run has ended: {again}")
    for name, known in summary.get("logged", {}).items():
        if not (work_dir / name).is_file() or sha256(work_dir / name) != known:
            raise CheckpointError(f"{str(work_dir / name)!r} is missing, or not what this run logged: {again}")
    return Record(
        work_dir=work_dir,
        config=config,
        checkpoint=checkpoint,
        step=step,
        summary=summary,
        scalars=read_scalars(work_dir),
    )


def read_scalars(work_dir: Path) -> Scalars:
    """Everything that the newest run and the segments it was resumed from logged, joined by step.

    A segment that was resumed from step n takes the place of what an earlier one had logged after n; one that
    started anew takes the place of everything.
    """
    rows: list[dict[str, Any]] = []
    segments = 0
    # mmengine names these folders by the time of the start.
    for folder in sorted(p.parent for p in work_dir.glob("*/vis_data")):
        since = _resumed_from(folder.glob("*.log"))
        rows = [row for row in rows if row["step"] <= since]
        segments = segments + 1 if since else 1
        rows += _rows(folder / "vis_data" / "scalars.json")
    losses: dict[str, Points] = {}
    metrics: dict[str, Points] = {}
    for row in sorted(rows, key=lambda r: r["step"]):
        training = "loss" in row
        for name, value in row.items():
            # A name with a slash is a path's; "loss" is their sum, which changes with the phases that had a turn.
            if "/" in name and isinstance(value, (int, float)):
                _add((losses if training else metrics).setdefault(name, []), row["step"], float(value), training)
    return Scalars(losses, metrics, segments)


def _add(points: Points, step: int, value: float, training: bool) -> None:
    # mmengine repeats the last mean of a term that had no turn since: equal to the last bit, it is no new value.
    if not (training and points and points[-1][1] == value):
        points.append((step, value))


def _resumed_from(logs: Iterable[Path]) -> int:
    found = [int(m[1]) for log in logs for m in RESUMED.finditer(log.read_text(errors="replace"))]
    return max(found, default=0)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the line that a kill, or this moment of a running training, cut short
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


__all__ = ["Points", "Record", "Scalars", "read_record", "read_scalars"]
