"""Write the measured part of docs/results.md, from the lines of tools/compare/few_labels.sh or of any sweep.

    python -m tools.compare results docs/results.md --runs docs/data/coach*.jsonl

A table and a figure for every task and number of labels, over seeds: what each method reaches on test, the difference
of the same seeds to what trains the same weights untaught, processor time with the coach's own, and what a step holds.
The same lines give the same page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdpd_plugins.benchmark.report import markdown, new_figure, panel, save
from mdpd_plugins.registry import MDPDError
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks.scores import signed
from tools.compare.measured_pages import check_marks, write_measured
from tools.compare.result_lines import main_metric, read_runs
from tools.compare.statistics import paired, spread

TOOL = "tools/compare/results_page.py"
BASE = "low_rank_alone"
NORM_BASE = "norm_alone"  # of what trains norms and output layer alone
OF_NORMS = {"mdpd_alone", "coach_norm"}
Line = Mapping[str, Any]
Found = dict[int, tuple[float, float]]  # seed -> (main metric on test, processor seconds)

ROWS = {
    "linear_alone": "linear probe, labels alone",
    "norm_alone": "norms, labels alone",
    "lora_alone": "LoRA (query and value), labels alone",
    "low_rank_alone": "low-rank updates, labels alone",
    "mdpd_alone": "`mdpd` (paper), labels alone",
    "mdpd_low_rank_alone": "`mdpd_low_rank`, labels alone",
    "ladder_kept": "the ladder itself, kept",
    "reader_kept": "the reader itself, kept",
    "coach_norm": "`mdpd_coach`: norms, taught by the better coach",
    "coach_low_rank": "`mdpd_coach_low_rank`: taught by the better coach",
    "coach_ladder": "control: taught by the ladder",
    "coach_reader": "control: taught by the reader",
    "self_training": "control: taught by the backbone from labels alone",
}
# Lines from before a coach was calibrated (docs/results.md says which commit): the ablation of calibration.
RAW = "_raw"
# Everything that learns sees augmented pictures; a reader learns from kept views of them.
AUGMENTED = "_aug"
_AUGMENTED_ROWS = {f"{name}{AUGMENTED}": f"{said}, augmented" for name, said in ROWS.items()}
_RAW_ROWS = {f"{n}{RAW}": f"{said}, not calibrated" for n, said in ROWS.items() if n.startswith(("coach", "self"))}
_AUGMENTED_ROWS[f"coach_norm{AUGMENTED}"] = "`mdpd_coach`: norms, taught by the reader, augmented"
ROWS |= _AUGMENTED_ROWS | _RAW_ROWS


def found_of(lines: Sequence[Line]) -> dict[str, Found]:
    """Row -> seed -> what it reached, of the lines of one task."""
    by_method: dict[str, dict[int, Line]] = {}
    for line in lines:
        by_method.setdefault(line["method"], {})[line["seed"]] = line
    rows: dict[str, Found] = {
        method: {seed: (_metric(line), _seconds(line)) for seed, line in own.items()}
        for method, own in by_method.items()
    }
    kept = {f"{kind}_kept": (f"coach_{kind}{RAW}", f"coach_{kind}") for kind in ("reader", "ladder")}
    kept[f"reader_kept{AUGMENTED}"] = (f"coach_reader{AUGMENTED}",)
    for name, methods in kept.items():
        taught = {seed: line for method in methods for seed, line in by_method.get(method, {}).items()}
        rows[name] = {seed: (line["coach"]["kept"], line["coach"]["cpu_seconds"]) for seed, line in taught.items()}
    # What coach="auto" does: the better of both on val, of equals the ladder. Both had to be trained for it.
    both = [by_method.get(f"coach_{kind}", {}) for kind in ("ladder", "reader")]
    rows["coach_low_rank"] = {}
    for seed in sorted(set(both[0]) & set(both[1])):
        pair = [own[seed] for own in both]
        best = max(pair, key=lambda line: max(line["coach"]["scores"].values()))
        seconds = best["cpu_seconds"] + sum(line["coach"]["cpu_seconds"] for line in pair)
        rows["coach_low_rank"][seed] = _metric(best), seconds
    return {name: rows[name] for name in dict.fromkeys([*ROWS, *rows]) if rows.get(name)}


def memory_of(lines: Sequence[Line]) -> dict[str, int]:
    """Method -> bytes that a step holds above the frozen weights; a sweep counts them with its first seed."""
    held = {line["method"]: line["memory"]["total"] for line in lines if line["memory"]}
    # Whoever taught, the second stage is the same.
    return {**held, **({"coach_low_rank": held["coach_ladder"]} if "coach_ladder" in held else {})}


def _labels(line: Line) -> int:
    """How many examples had labels; 0: all that there are."""
    sizes = [option.partition("=")[2] for option in line["options"] if option.startswith("data.source.train_size=")]
    return int(sizes[-1]) if sizes else 0


def _metric(line: Line) -> float:
    return line["metrics"][main_metric(line)]


def _seconds(line: Line) -> float:
    return line["cpu_seconds"] + line["coach"].get("cpu_seconds", 0.0)


def table(rows: Mapping[str, Found], memory: Mapping[str, int]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one task. `memory`: as of `memory_of`."""
    header = ["method", "seeds", "on test", "minus untaught", "p (paired t)", "CPU seconds", "step, MiB"]
    found = []
    for name, own in rows.items():
        end = AUGMENTED if name.endswith(AUGMENTED) else ""
        plain = name.removesuffix(AUGMENTED).removesuffix(RAW)
        base = rows.get((NORM_BASE if plain in OF_NORMS else BASE) + end, {})
        mean, deviation = spread([value for value, _ in own.values()])
        shared = sorted(set(own) & set(base)) if plain != BASE else []
        said = ["-", "-"]
        if shared:
            result = paired([own[s][0] for s in shared], [base[s][0] for s in shared])
            said = [f"{result.mean:+.4f}", "-" if result.t_test is None else f"{result.t_test:.3f}"]
        value = f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
        seconds = spread([seconds for _, seconds in own.values()])[0]
        held = f"{memory[name] / 2**20:.1f}" if name in memory else "-"
        found.append([ROWS.get(name, name), str(len(own)), value, *said, f"{seconds:.0f}", held])
    return header, found


def plot(rows: Mapping[str, Found], metric: str, path: Path) -> None:
    """The metric against processor time, one point a row, to an SVG file."""
    reached = {name: spread([value for value, _ in own.values()])[0] for name, own in rows.items()}
    seconds = {name: spread([spent for _, spent in own.values()])[0] for name, own in rows.items()}
    taught = {name for name in rows if name.startswith("coach")}
    figure, (axes,) = new_figure(1)
    panel(axes, seconds, reached, ("CPU seconds of training", metric), taught, min if signed(metric, 1.0) < 0 else max)
    save(figure, path)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("page", type=Path)
    p.add_argument("--runs", nargs="+", type=Path, required=True)
    args = p.parse_args()
    try:
        check_marks(args.page, TOOL)
        lines = [line for file in args.runs for line in read_runs(file)]
        if not lines:
            raise ConfigError(f"no runs in {', '.join(map(str, args.runs))}: give files that a sweep has written")
        tasks: dict[str, dict[int, list[Line]]] = {}
        for line in lines:
            tasks.setdefault(line["config"], {}).setdefault(_labels(line), []).append(line)
        parts, plots = [], args.page.parent / "plots"
        plots.mkdir(exist_ok=True)
        for config, by_labels in tasks.items():
            name, first = Path(config).stem, next(iter(by_labels.values()))[0]
            parts.append(f"### {name}\n\n{first['data']} Metric: {first['metric']}.")
            for labels, own in sorted(by_labels.items()):
                rows, file = found_of(own), f"{args.page.stem}_{name}_{labels or 'all'}.svg"
                parts.append(f"With {labels} labels:" if labels else "With all labels:")
                parts.append(markdown(*table(rows, memory_of(own))))
                plot(rows, first["metric"], plots / file)
                parts.append(f"![{first['metric']} against time](plots/{file})")
        write_measured(args.page, TOOL, "\n\n".join(parts))
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
