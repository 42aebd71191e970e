"""The lines of a sweep: one JSON object a finished run, and what its score is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks.scores import signed

TUNING_SEED = 1000  # none that a result is reported for


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs in a JSON-lines file; a last line that a kill cut short is left out.

    Raises:
        ConfigError: another line is not JSON.
    """
    if not path.is_file():
        return []
    runs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}, line {number} is not a run: {error}. Remove that line, or the file") from error
    return runs


def append_run(path: Path, run: Mapping[str, Any]) -> None:
    """Add a line in one write, on the disk when this returns. What a kill left of a line before it is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another sweep may write to the file: both read what it held before they do.
    with FileLock(f"{path}.lock"), path.open("ab+") as file:
        file.seek(0)
        held = file.read()
        file.truncate(held.rfind(b"\n") + 1)
        file.write(json.dumps(run).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def main_metric(run: Mapping[str, Any]) -> str:
    """Key in `run["metrics"]` of the task's main metric, of the path that the method deploys."""
    return f"{run['deploys']}/{run['metric']}"


def score(run: Mapping[str, Any]) -> float:
    """The main metric of what the method deploys, signed so that more is better; -inf of a model that diverged."""
    value = run["metrics"][main_metric(run)]
    if math.isnan(value):
        return -math.inf
    return signed(run["metric"], value)


__all__ = ["TUNING_SEED", "append_run", "main_metric", "read_runs", "score"]
