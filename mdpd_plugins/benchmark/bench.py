"""Methods side by side on one model, batch and data: memory, seconds per step, inference latency."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.registry.errors import MDPDError
from mdpd_plugins.versions import installed_versions

# What is compared unless some are named: rows of the engine's METHODS.
COMPARED = (
    *("full", "lora", "lora_checkpointed", "norm", "norm_checkpointed", "linear", "ladder", "mdpd", "mdpd_low_rank"),
    *("mdpd_low_memory", "mdpd_last_k", "mdpd_local", "mdpd_head"),
)


class _Process:
    """One worker; `ask` sends a request and waits for its answer."""

    def __init__(self, method: str):
        self.method = method
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mdpd_plugins.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.wait()
            self.errors.seek(0)
            raise MDPDError(f"benchmark of {self.method} failed at {do!r}:\n{self.errors.read()[-2000:]}")
        found = json.loads(answer)
        if "error" in found:
            raise MDPDError(found["error"])
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def bench(
    config: Path, methods: Sequence[str], options: dict[str, Any], *, device: str = "cpu", rounds: int = 5
) -> dict[str, Any]:
    """Compare methods; see docs/memory.md for what each figure means.

    Args:
        config: a config file. methods: rows of METHODS. options: `--cfg-options` for all of them.
        device: "cpu" or "cuda". rounds: timed cycles a method, taken in turn so that a slow moment of the machine
            falls on all of them; the steps in which memory was counted have warmed them up.

    Returns:
        {"results": [one dict a method], "environment": {...}}.

    Raises:
        MDPDError: a method failed, with its output.
    """
    processes: dict[str, _Process] = {}
    rows: dict[str, dict[str, Any]] = {}
    try:
        for method in methods:
            print(f"building {method}", file=sys.stderr, flush=True)
            processes[method] = _Process(method)
            given = {**options, "distill.method": method}
            built = processes[method].ask("build", config=str(config), options=given, device=device)
            rows[method] = {"method": method, **built}
            memory = processes[method].ask("memory")
            rows[method]["training_state_bytes"] = memory["total"]
            rows[method]["memory"] = memory
        seconds: dict[str, list[float]] = {m: [] for m in methods}
        for i in range(rounds):
            for method in methods:
                print(f"round {i + 1}/{rounds}: {method}", file=sys.stderr, flush=True)
                seconds[method].append(processes[method].ask("cycle")["seconds"])
        for method in methods:
            rows[method].update(processes[method].ask("inference"))
    finally:
        for process in processes.values():
            process.close()
    for method, taken in seconds.items():
        spread = {"min": min(taken), "median": statistics.median(taken), "max": max(taken)}
        rows[method]["step_seconds"] = {**spread, "all": taken}
        for rival in ("lora", "lora_checkpointed"):
            if rival in seconds:
                pairs = [a / b for a, b in zip(taken, seconds[rival], strict=True)]
                rows[method][f"step_ratio_to_{rival}"] = statistics.median(pairs)
    return {"results": [rows[m] for m in methods], "environment": environment(config, options, device, rounds)}


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


__all__ = ["COMPARED", "bench", "environment"]
