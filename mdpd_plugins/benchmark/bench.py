"""Methods side by side on one model, batch and data: memory, seconds per step, inference latency."""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.benchmark.process import Process
from mdpd_plugins.benchmark.report import label
from mdpd_plugins.versions import installed_versions

# What is compared unless some are named: rows of the engine's METHODS.
COMPARED = (
    *("full", "lora", "lora_checkpointed", "norm", "norm_checkpointed", "linear", "ladder", "mdpd", "mdpd_low_rank"),
    *("mdpd_low_memory", "mdpd_last_k", "mdpd_local", "mdpd_head"),
)


def bench(
    config: Path,
    methods: Sequence[str],
    options: dict[str, Any],
    *,
    device: str = "cpu",
    rounds: int = 5,
    dtypes: Sequence[str] = (),
) -> dict[str, Any]:
    """Compare methods; see docs/memory.md for what each figure means.

    Args:
        config: a config file. methods: rows of METHODS. options: `--cfg-options` for all of them.
        device: "cpu" or "cuda". rounds: timed cycles a row, taken in turn so that a slow moment of the machine
            falls on all of them; the steps in which memory was counted have warmed them up.
        dtypes: values of `backbone.dtype`, each for every method; none: the configuration's.

    Returns:
        {"results": [one dict a method and type], "environment": {...}}. Ratios to another method are within one type,
        and `step_ratio_to_first_dtype` is within one method.

    Raises:
        MDPDError: a method failed, with its output.
    """
    rows: dict[str, dict[str, Any]] = {label(row): row for row in variants(methods, dtypes)}
    processes: dict[str, Process] = {}
    try:
        for name, row in rows.items():
            print(f"building {name}", file=sys.stderr, flush=True)
            processes[name] = Process(name)
            given = {**options, **options_of(row)}
            row.update(processes[name].ask("build", config=str(config), options=given, device=device))
            memory = processes[name].ask("memory")
            row["training_state_bytes"] = memory["total"]
            row["memory"] = memory
        seconds: dict[str, list[float]] = {name: [] for name in rows}
        for i in range(rounds):
            for name in rows:
                print(f"round {i + 1}/{rounds}: {name}", file=sys.stderr, flush=True)
                seconds[name].append(processes[name].ask("cycle")["seconds"])
        for name, row in rows.items():
            row.update(processes[name].ask("inference"))
    finally:
        for process in processes.values():
            process.close()

    def ratio(name: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))

    for name, row in rows.items():
        taken = seconds[name]
        row["step_seconds"] = {"min": min(taken), "median": statistics.median(taken), "max": max(taken), "all": taken}
        for rival in ("lora", "lora_checkpointed"):
            if (other := label({**row, "method": rival})) in seconds:
                row[f"step_ratio_to_{rival}"] = ratio(name, other)
        if dtypes:
            row["step_ratio_to_first_dtype"] = ratio(name, label({**row, "dtype": dtypes[0]}))
    return {"results": list(rows.values()), "environment": environment(config, options, device, rounds)}


def variants(methods: Sequence[str], dtypes: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a comparison: each method with each type, or with the configuration's if none is named."""
    return [{"method": m, **given} for m in methods for given in ([{"dtype": d} for d in dtypes] or [{}])]


def options_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row overrides of the configuration."""
    return {"distill.method": row["method"], **({"backbone.dtype": row["dtype"]} if "dtype" in row else {})}


def environment(config: Path, options: dict[str, Any], device: str, rounds: int) -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "config": str(config),
        "options": options,
        "rounds": rounds,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "libraries": installed_versions(),
    }


__all__ = ["COMPARED", "bench", "environment", "options_of", "variants"]
