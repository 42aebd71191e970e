"""Our methods beside peft's LoRA and QLoRA in transformers' own Trainer: same model, batches and data.

    python -m tools.compare outside CONFIG --methods mdpd_low_rank mdpd --rivals lora qlora --steps 60 --json OUT

Every row is a process of its own. It trains the same number of steps, says what it learned on the validation data and
what it held, counts the bytes of one step, and is then timed in turn with the others. docs/memory.md says what each
figure means. A method is a name or a recipe under a label, as for a sweep (tools/compare/methods.py), such as
halves:method=mdpd_low_rank,distill.sub_batch=8.

Rivals: lora (peft's updates of query and value), lora_all (of every linear layer), qlora (the same over weights of 4
bits, by bitsandbytes). All of them with gradient checkpointing and a trained output layer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mdpd_plugins.benchmark.bench import environment
from mdpd_plugins.benchmark.process import Process
from mdpd_plugins.console import console
from mdpd_plugins.engine import Settings
from mdpd_plugins.files import write_json
from mdpd_plugins.registry import ConfigError, MDPDError, MissingDependencyError, closest
from mdpd_plugins.tasks import AnyTask
from mdpd_plugins.training.config import any_method, load_config, read_overrides
from tools.compare.methods import Method, read_methods
from tools.compare.outside.prepared import prepare
from tools.compare.outside.table import COLUMNS, NOTE, cells
from tools.resident import alone

RIVALS = ("lora", "lora_all", "qlora")


def check(methods: Sequence[Method], rivals: Sequence[str], steps: int, rounds: int) -> None:
    """Raise ConfigError for what cannot be compared, MissingDependencyError for what is not installed."""
    for method in methods:
        if settings_of(method.overrides).coach:
            raise ConfigError(f"{method.label!r} learns in two stages, and steps are compared one by one: leave it out")
    for rival in rivals:
        if rival not in RIVALS:
            raise ConfigError(f"there is no rival {rival!r}: {closest(rival, RIVALS)}")
    if len(set(rivals)) < len(rivals):
        raise ConfigError(f"--rivals {' '.join(rivals)}: each of them once")
    needed = {"peft", *(["bitsandbytes"] if "qlora" in rivals else [])}
    if absent := sorted(name for name in needed if find_spec(name) is None):
        raise MissingDependencyError(f"{' and '.join(absent)} not installed: pip install {' '.join(absent)}")
    if not rivals:
        raise ConfigError(f"no rival to compare with: --rivals takes {', '.join(RIVALS)}")
    if steps < 1 or rounds < 1:
        raise ConfigError(f"--steps {steps} --rounds {rounds}: at least one of each is needed")


def settings_of(overrides: Sequence[str]) -> Settings:
    """The settings of a method by its KEY=VALUE pairs."""
    given = read_overrides(overrides)
    return Settings.from_dict({k.removeprefix("distill."): v for k, v in given.items() if k.startswith("distill.")})


def compare(
    config: Path,
    methods: Sequence[Method],
    rivals: Sequence[str],
    options: dict[str, Any],
    *,
    steps: int,
    rounds: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train, measure and time each side.

    Args:
        methods: ours. rivals: of RIVALS; times are ratios to the first of them.
        options: `--cfg-options`, of all; but `backbone.quantization`, which is of our engine, of our methods alone.
        steps: of training. rounds: timed cycles, taken in turn.

    Returns:
        {"results": [one dict a row], "environment": {...}, "rivals", "methods", "steps"}.

    Raises:
        ConfigError, MissingDependencyError: as `check` and `prepare`. MDPDError: a side failed, with its output.
    """
    check(methods, rivals, steps, rounds)
    given = {**options, "train.max_steps": steps}
    # One GPU or none: a Trainer would take all that there are.
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] if device == "cuda" else ""
    environ = {"CUDA_VISIBLE_DEVICES": seen}
    processes: dict[str, Process] = {}
    rows: list[dict[str, Any]] = []
    known: dict[tuple[str, ...], int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("preparing the model and its batches")
        plain = {k: v for k, v in given.items() if k != "backbone.quantization"}
        task = prepare(any_method(load_config(config, {**plain, "distill.method": "linear"})), folder)
        try:
            sides: list[tuple[str, str, dict[str, Any]]] = [
                (f"peft {rival}", "rival", {"folder": str(folder), "rival": rival}) for rival in rivals
            ]
            for method in methods:
                own = {"config": str(config), "options": {**given, **read_overrides(method.overrides)}}
                sides.append((method.label, "ours", own))
            for label, by, asked in sides:
                rows.append({"name": label, "by": by})
                processes[label] = Process(label, f"tools.compare.outside.{by}", environ)
                _measure(rows[-1], processes[label], {**asked, "device": device}, known)
            _time(rows, processes, rounds)
            for row in rows:
                _judge(row, processes[row["name"]], task, folder)
        finally:
            for process in processes.values():
                process.close()
    return {
        "results": rows,
        "environment": environment(config, options, device, rounds),
        "rivals": list(rivals),
        "methods": [method.text for method in methods],
        "steps": steps,
    }


def _measure(row: dict[str, Any], process: Process, asked: dict[str, Any], known: dict[tuple[str, ...], int]) -> None:
    """Train, and find what the process and a step held.

    Args:
        known: modules -> bytes of a process that has imported them.
    """
    say(f"building and training {row['name']}")
    row.update(process.ask("build", **asked))
    row.update(process.ask("train"))
    row["resident"] = held = process.ask("held")
    modules = tuple(held.pop("modules"))
    if "cuda_peak" not in held:  # on a GPU that is what matters, and not the main memory of the same process
        if modules not in known:
            known[modules] = alone(list(modules))["all"]
        row["resident"] = {**held, "libraries": known[modules], "above": held["peak"] - known[modules]}
    row["memory"] = process.ask("memory")


def _time(rows: list[dict[str, Any]], processes: dict[str, Process], rounds: int) -> None:
    """Time cycles in turn; ratios are of the same round, and the median of rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for i in range(rounds):
        say(f"round {i + 1}/{rounds}")
        for name, process in processes.items():
            seconds[name].append(process.ask("cycle")["seconds"])
    first = seconds[rows[0]["name"]]
    for row in rows:
        taken = seconds[row["name"]]
        row["step_seconds"] = {"min": min(taken), "median": statistics.median(taken), "max": max(taken), "all": taken}
        row["step_ratio_to_first"] = statistics.median(a / b for a, b in zip(taken, first, strict=True))


def _judge(row: dict[str, Any], process: Process, task: AnyTask, folder: Path) -> None:
    """What was learned. Last, because bitsandbytes packs weights anew for a CPU's evaluation, and cannot train then."""
    file = folder / "outputs.pt"
    process.ask("outputs", file=str(file))
    seen = torch.load(file, weights_only=True)
    row["loss"] = float(task.loss(seen["outputs"], seen["labels"]))
    row["metrics"] = task.metrics(task.scored(seen["outputs"], seen["labels"]), seen["labels"])
    row["metric"] = task.main_metric


def say(what: str) -> None:
    """On the error stream, at once."""
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config", metavar="CONFIG", type=Path)
    p.add_argument("--methods", nargs="*", default=["lora_checkpointed", "mdpd", "mdpd_low_rank"], metavar="M")
    p.add_argument("--rivals", nargs="+", default=list(RIVALS), metavar="R", help=", ".join(RIVALS))
    p.add_argument("--steps", type=int, default=60, metavar="N", help="of training")
    p.add_argument("--rounds", type=int, default=5, metavar="N", help="timed cycles, taken in turn")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--json", type=Path, metavar="OUT", help="write the results here")
    p.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of the configuration")
    args = p.parse_args()
    try:
        if args.json and not args.json.absolute().parent.is_dir():
            raise ConfigError(f"the folder of {str(args.json)!r} does not exist: make it, or name another")
        found = compare(
            args.config,
            read_methods(args.methods),
            args.rivals,
            read_overrides(args.cfg_options),
            steps=args.steps,
            rounds=args.rounds,
            device=args.device,
        )
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        write_json(args.json, found)
    show(found)
    return 0


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    from rich.table import Table

    table = Table(*COLUMNS, box=None, header_style="bold", pad_edge=False)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in cells(found):
        table.add_row(*row)
    console().print(table)
    console().print(NOTE)


if __name__ == "__main__":
    sys.exit(main())
