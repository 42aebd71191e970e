"""Write the measured part of a page of results, tables and plots, from the lines of `python -m tools.compare sweep`.

    python -m tools.compare results docs/results.md --runs docs/data/RUNS.jsonl

For every task: what each method reached (mean and standard deviation over seeds) and what it cost; MDPD and its
variants against --against, and a recipe against its --ablations, over the same seeds; the Pareto fronts; and, where
methods were trained at several `train.max_epochs`, what they reached in equal time. Then all tasks together, on the
validation split that rates were chosen on too. Plots land in the folder plots beside the page. The same lines give the
same page and plots.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mdpd_plugins.benchmark.report import markdown
from mdpd_plugins.registry import MDPDError
from mdpd_plugins.registry.errors import ConfigError, closest
from tools.compare.measured_pages import check_marks, write_measured
from tools.compare.methods import Method
from tools.compare.plots import fronts, plot_costs, plot_curves
from tools.compare.result_lines import TUNING_SEED, read_runs
from tools.compare.results import (
    LENGTH,
    Task,
    method_rows,
    over_tasks,
    paired_rows,
    path_rows,
    rank_rows,
    tasks,
    teaching_rows,
    validation_tasks,
    within_rows,
)
from tools.compare.sweep import run_of

TOOL = "tools/compare/results_page.py"
Pair: TypeAlias = tuple[str, str]


def commands(file: Path, runs: Sequence[dict[str, Any]]) -> list[str]:
    """The commands of `python -m tools.compare sweep` that a file of lines is from, worked out from what they hold."""
    # Configurations that were run with the same methods, options, seeds and grid were one command.
    by_form: dict[tuple[str, ...], list[str]] = {}
    for config, options in dict.fromkeys((run["config"], tuple(run["options"])) for run in runs):
        own = [run for run in runs if (run["config"], tuple(run["options"])) == (config, options)]
        methods = dict.fromkeys(Method(run["method"], tuple(run["overrides"])).text for run in own)
        final = [run for run in own if run["seed"] != TUNING_SEED] or own
        grid: dict[str, list[str]] = {}
        for run in own:
            for key, _, value in (pair.partition("=") for pair in run["tuned"] if run["seed"] == TUNING_SEED):
                grid.setdefault(key, []).extend([value] if value not in grid.get(key, []) else [])
        form = ["--methods", *sorted(methods), "--seeds", *sorted({str(run["seed"]) for run in final}, key=int)]
        form += ["--tune", *(f"{key}={','.join(values)}" for key, values in grid.items())] if grid else []
        form += ["--split", final[0]["split"]] if final[0]["split"] != "test" else []
        form += ["--cfg-options", *options] if options else []
        by_form.setdefault(tuple(form), []).append(config)
    return [
        shlex.join(["python", "-m", "tools.compare", "sweep", *configs, *form, "--out", file.as_posix()])
        for form, configs in by_form.items()
    ]


def section(task: Task, pairs: Sequence[Pair], against: Sequence[str], within: Sequence[float], page: Path) -> str:
    """One task: tables and plots."""
    plots, stem = page.parent / "plots", page.stem
    first = next(iter(task.main.values())).first
    name = re.sub(r"[^a-z0-9]+", "_", task.name.lower()).strip("_")
    about = f"{first['data']} Weights: {first['weights']}."
    settings = [*task.options, *([f"{LENGTH}={task.length}"] if task.length else [])]
    about += f" Here with `{' '.join(settings)}`." if settings else ""
    parts = [f"### {task.name}", about, markdown(*method_rows(task))]
    for header, rows in (paired_rows(task, pairs), path_rows(task)):
        if rows:
            parts.append(markdown(header, rows))
    plot_costs(task, plots / f"{stem}_{name}.svg")
    parts.append("\n".join(f"- Front of {task.metric} and {k}: {', '.join(v)}." for k, v in fronts(task).items() if v))
    parts.append(f"![{task.metric} against time and memory](plots/{stem}_{name}.svg)")
    if plot_curves(task, plots / f"{stem}_{name}_over_time.svg"):
        parts.append("Equal time: of each method the longest training that fits.")
        others = [rival for rival in against if rival in task.main and not task.main[rival].ours]
        parts.append(markdown(*within_rows(task, others, within)))
        parts.append(f"![{task.metric} over training time](plots/{stem}_{name}_over_time.svg)")
    return "\n\n".join(parts)


def together(found: Sequence[Task], chosen: Sequence[Task], pairs: Sequence[Pair]) -> str:
    """All tasks at once."""
    parts = ["### All tasks"]
    for header, rows in (rank_rows(found), over_tasks(found, pairs)):
        if rows:
            parts.append(markdown(header, rows))
    header, rows = teaching_rows(found, pairs)
    if rows:
        parts.append(
            "What teaching brings, and by how much its teacher, the mean of both paths, is better than the pupil."
        )
        parts.append(markdown(header, rows))
    header, rows = rank_rows(chosen)
    if rows:
        parts.append("On validation, one seed, each method at the best of the same rates: what a recipe is chosen by.")
        parts.append(markdown(header, rows))
    return "\n\n".join(parts)


def ablations_of(text: str) -> list[Pair]:
    """`METHOD=ABLATION,ABLATION` as pairs."""
    method, equals, rivals = text.partition("=")
    if not (method and equals and all(rivals.split(","))):
        raise argparse.ArgumentTypeError(f"{text!r}: METHOD=ABLATION,ABLATION is meant, such as mdpd=mdpd_no_logits")
    return [(method, rival) for rival in rivals.split(",")]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("page", type=Path)
    p.add_argument("--runs", nargs="+", type=Path, required=True, help="files of `python -m tools.compare sweep`")
    p.add_argument("--compare", nargs="+", metavar="METHOD", help="default: MDPD and all its variants in the files")
    p.add_argument("--against", nargs="+", default=["norm", "ladder", "lora", "lora_checkpointed"], metavar="METHOD")
    p.add_argument(
        "--ablations",
        nargs="+",
        type=ablations_of,
        default=[],
        metavar="METHOD=ABLATION,...",
        help="compare METHOD with these too",
    )
    p.add_argument(
        "--within", nargs="+", type=float, default=[], metavar="SECONDS", help="besides the rivals' own time"
    )
    p.add_argument("--split", choices=["val", "test"], default="test")
    args = p.parse_args()
    try:
        check_marks(args.page, TOOL)
        lines = {file: read_runs(file) for file in args.runs}
        empty = [str(file) for file, runs in lines.items() if not runs]
        if empty:
            raise ConfigError(f"no runs in {', '.join(empty)}: give files that a sweep has written")
        for run in (run for runs in lines.values() for run in runs):
            run_of(run)  # one of an older form is refused before anything is written
        every = [run for runs in lines.values() for run in runs]
        found, chosen = tasks(every, args.split), validation_tasks(every)
        if not found:
            raise ConfigError(f"no run on the {args.split} split yet in {', '.join(map(str, lines))}")
        ours = args.compare or list(dict.fromkeys(m for t in found for m, cell in t.main.items() if cell.ours))
        (args.page.parent / "plots").mkdir(exist_ok=True)
        parts = ["Made with\n\n" + "\n".join(f"    {c}" for file, runs in lines.items() for c in commands(file, runs))]
        known = dict.fromkeys(method for task in found for method in task.main)
        asked = [*(args.compare or []), *(name for of_one in args.ablations for pair in of_one for name in pair)]
        for name in asked:
            if name not in known:
                raise ConfigError(f"no run of {name!r} in {', '.join(map(str, lines))}: {closest(name, known)}")
        pairs = [(method, rival) for method in ours for rival in args.against if method != rival]
        pairs += [pair for of_one in args.ablations for pair in of_one]
        parts += [section(task, pairs, args.against, args.within, args.page) for task in found]
        parts += [together(found, chosen, pairs)] if len(found) > 1 else []
        write_measured(args.page, TOOL, "\n\n".join(parts))
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
