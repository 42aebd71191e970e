"""A grid of methods and seeds over one configuration: one subprocess a run, one line of JSON a result."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdpd_plugins.registry.errors import ConfigError, MDPDError


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs in a JSON-lines file; a last line that a kill cut short is left out.

    Raises:
        ConfigError: another line is not JSON.
    """
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    runs = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}, line {number} is not a run: {error}. Remove that line, or the file") from error
    return runs


def sweep(
    config: Path, methods: Sequence[str], seeds: Sequence[int], out: Path, options: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Run every method with every seed that `out` does not hold yet.

    Args:
        config: a config file. methods: rows of engine.METHODS. options: `--cfg-options` of every run.
        out: JSON lines, one a finished run; what is in it already is not run again.

    Raises:
        MDPDError: a run failed; its output is in the message.
    """
    done = read_runs(out)
    keys = {_key(run) for run in done}
    given = [f"{k}={v}" for k, v in options.items()]
    todo = [(m, s) for s in seeds for m in methods]
    todo = [
        (m, s) for m, s in todo if _key({"config": str(config), "method": m, "seed": s, "options": given}) not in keys
    ]
    for count, (method, seed) in enumerate(todo, 1):
        print(f"[{count}/{len(todo)}] {method}, seed {seed}", file=sys.stderr, flush=True)
        run = _run(config, method, seed, given)
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as file:
            file.write(json.dumps(run) + "\n")
        done.append(run)
    return done


def _run(config: Path, method: str, seed: int, given: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        program = "import sys; from mdpd_plugins.training import main; sys.exit(main())"
        overrides = [f"distill.method={method}", f"train.seed={seed}", *given]
        command = [sys.executable, "-c", program, str(config), "--work-dir", folder, "--cfg-options", *overrides]
        start = time.perf_counter()
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise MDPDError(
                f"{method} with seed {seed} failed:\n{result.stderr[-2000:]}\nRun it alone: {' '.join(command)}"
            )
        summary = json.loads((Path(folder) / "summary.json").read_text())
    return {
        "config": str(config),
        "method": method,
        "seed": seed,
        "options": given,
        "seconds": round(time.perf_counter() - start, 1),
        "metrics": summary["metrics"],
        "parameters": summary["parameters"],
        "memory": summary["memory"],
        "weights": summary["weights"],
    }


def _key(run: Mapping[str, Any]) -> tuple:
    return (run["config"], run["method"], run["seed"], tuple(run["options"]))


def markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation over seeds, one table a configuration and option set."""
    tables = []
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["config"], tuple(run["options"])), []).append(run)
    for (config, options), members in groups.items():
        keys = sorted({k for run in members for k in run["metrics"]})
        head = f"`{config}`{' with `' + ' '.join(options) + '`' if options else ''}"
        rows = [
            f"| method | seeds | {' | '.join(keys)} | trained in backbone | training state (MiB) |",
            "| --- | --- |" + " --- |" * (len(keys) + 2),
        ]
        for method in dict.fromkeys(run["method"] for run in members):
            own = [run for run in members if run["method"] == method]
            cells = [_spread([run["metrics"][k] for run in own if k in run["metrics"]]) for k in keys]
            state = own[0]["memory"].get("total", 0) / 2**20
            trained = own[0]["parameters"]["backbone_trained"]
            rows.append(f"| {method} | {len(own)} | {' | '.join(cells)} | {trained:,} | {state:.0f} |")
        tables.append(head + "\n\n" + "\n".join(rows))
    return "\n\n".join(tables)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


__all__ = ["markdown", "read_runs", "sweep"]
