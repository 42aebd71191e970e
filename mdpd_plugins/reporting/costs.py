"""Memory and time of the run against the baselines: planned for its very configuration, or from a benchmark."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdpd_plugins.engine.settings import METHODS
from mdpd_plugins.planning.plan import plan
from mdpd_plugins.registry.errors import ConfigError, MDPDError
from mdpd_plugins.reporting.history import Record

BASELINES = ("full", "lora", "lora_checkpointed", "norm", "norm_checkpointed", "ladder")
# Sizes that a baseline shares with the run; its switches are the baseline's own.
SHARED = ("reduction", "side_head_dim", "rank", "sub_batch")
PARTS = {"side_parameters": "side network", "optimiser": "optimisers", "transient": "peak of a step"}


@dataclass(frozen=True)
class Costs:
    """Bytes and seconds of several methods.

    Attributes:
        ours: the row of this run. memory: row -> part of PARTS -> bytes above the frozen weights.
        missing: row -> why it has no figures. source: how the figures were come by, a sentence.
        times: rows of a benchmark, each with its seconds a step and latency; empty for plans.
    """

    ours: str
    memory: dict[str, dict[str, int]]
    source: str
    missing: dict[str, str] = field(default_factory=dict)
    times: list[dict[str, Any]] = field(default_factory=list)


def planned_costs(record: Record) -> Costs:
    """This run's training state beside plans of the baselines at the same batch, data and precision."""
    memory: dict[str, dict[str, int]] = {}
    missing: dict[str, str] = {}
    method = record.config.distill.get("method", "mdpd")
    measured = record.summary.get("memory") or {}
    ours = f"this run ({method})"
    if measured:
        memory[ours] = _parts(measured)
    else:
        _plan(ours, dict(record.config.distill), record, memory, missing)
    kept = {k: v for k, v in record.config.distill.items() if k in SHARED}
    for name in BASELINES:
        _plan(name, {**kept, **METHODS[name], "method": name}, record, memory, missing)
    source = (
        f"{'Measured at the start of this run' if measured else 'Planned for this run, which has not finished'}; "
        f"baselines planned for the same backbone, data, batch and precision (as by mdpd bench --plan)."
    )
    return Costs(ours, memory, source, missing)


def _plan(name: str, distill: dict[str, Any], record: Record, memory, missing) -> None:
    print(f"planning {name}", file=sys.stderr, flush=True)
    config = copy.deepcopy(record.config)
    config.distill = distill
    try:
        memory[name] = _parts(plan(config).step.as_dict())
    except MDPDError as error:
        missing[name] = str(error)


def benchmark_costs(path: Path, record: Record) -> Costs:
    """What `mdpd bench --json` measured.

    Raises:
        ConfigError: the file holds no benchmark, or one of another backbone.
    """
    try:
        found: Mapping[str, Any] = json.loads(path.read_text())
        rows = {row["method"]: row for row in found["results"]}
        memory = {name: _parts(row["memory"]) for name, row in rows.items()}
        environment = found["environment"]
        source = (
            f"Measured by mdpd bench {environment['config']} on {environment['device']}, torch {environment['torch']}."
        )
        times = [
            {**row, "seconds": row["step_seconds"], "ratio": row["inference_ratio_to_plain"]} for row in rows.values()
        ]
    except OSError as error:
        raise ConfigError(f"--bench {str(path)!r} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--bench {str(path)!r} holds no benchmark ({type(error).__name__}: {error}): give what "
            f"mdpd bench {record.work_dir / 'config.py'} --json FILE has written"
        ) from error
    return Costs(record.config.distill.get("method", "mdpd"), memory, source, times=times)


def _parts(memory: Mapping[str, int]) -> dict[str, int]:
    return {part: int(memory[part]) for part in PARTS}


__all__ = ["PARTS", "Costs", "benchmark_costs", "planned_costs"]
