"""Write the measured parts of docs/results.md and of its appendix, from lines of tools/compare/few_labels.sh.

    python -m tools.compare results docs/results.md --appendix docs/results_appendix.md --runs docs/data/coach.jsonl

The page has a table and a figure for every task: what each method reaches on test with each number of labels. The
appendix has all rows: the difference of the same seeds to what trains the same weights untaught, processor time with
the coach's own, time to LoRA's accuracy, and what a step holds. The same lines give the same pages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from mdpd_plugins.benchmark.report import markdown, new_figure, panel, save
from mdpd_plugins.registry import MDPDError
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks.scores import signed
from tools.compare.measured_pages import check_marks, write_measured
from tools.compare.result_lines import read_runs
from tools.compare.result_rows import AUGMENTED, RAW, ROWS, Line, Row, base_of, labels_of, rows_of, title
from tools.compare.statistics import paired, spread

TOOL = "tools/compare/results_page.py"
SHOWN = 100  # labels: the setting of the figures, and of the times in the tables of the page
Rows = Mapping[str, Row]


def short_table(by_labels: Mapping[int, Rows]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one task: methods against numbers of labels, and what training takes with `SHOWN` labels."""
    settings = []
    for labels, rows in sorted(by_labels.items(), key=lambda item: item[0] or sys.maxsize):
        said = f"{labels} labels" if labels else "all labels"
        settings.append((said, rows, ""))
        if any(name.endswith(AUGMENTED) for name in rows):
            settings.append((f"{said}, augmented", rows, AUGMENTED))
    timed = by_labels.get(SHOWN, next(iter(by_labels.values())))
    found = []
    for name in dict.fromkeys([*ROWS, *(n for rows in by_labels.values() for n in rows)]):
        if name.endswith((AUGMENTED, RAW)):
            continue
        # Augmented rows have one coach, the reader.
        values = [_value(rows.get(name + end, {})) for _, rows, end in settings]
        if any(value != "-" for value in values):
            found.append([title(name), *values, _seconds(timed.get(name, {})), _memory(timed.get(name, {}))])
    return ["method", *(said for said, _, _ in settings), "CPU seconds", "step, MiB"], found


def full_table(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one task and number of labels, with comparisons."""
    header = ["method", "seeds", "on test", "minus untaught", "p (paired t)", "CPU seconds", "to LoRA's", "step, MiB"]
    found = []
    for name, own in rows.items():
        base = rows.get(base_of(name) or "", {})
        shared = sorted(set(own) & set(base))
        said = ["-", "-"]
        if shared:
            result = paired([own[s].value for s in shared], [base[s].value for s in shared])
            said = [f"{result.mean:+.4f}", "-" if result.t_test is None else f"{result.t_test:.3f}"]
        there = [reached.to_lora for reached in own.values() if reached.to_lora is not None]
        to_lora = f"{spread(there)[0]:.0f} ({len(there)} of {len(own)})" if there else "-"
        value = _value(own).rpartition(" (")[0]
        found.append([title(name), str(len(own)), value, *said, _seconds(own), to_lora, _memory(own)])
    return header, found


def _value(row: Row) -> str:
    if not row:
        return "-"
    mean, deviation = spread([reached.value for reached in row.values()])
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}") + f" ({len(row)})"


def _seconds(row: Row) -> str:
    return f"{spread([reached.seconds for reached in row.values()])[0]:.0f}" if row else "-"


def _memory(row: Row) -> str:
    held = [reached.memory for reached in row.values() if reached.memory is not None]
    return f"{held[-1] / 2**20:.1f}" if held else "-"


def plot(rows: Rows, metric: str, path: Path) -> None:
    """The metric against processor time, one point a row, to an SVG file."""
    reached = {name: spread([one.value for one in own.values()])[0] for name, own in rows.items()}
    seconds = {name: spread([one.seconds for one in own.values()])[0] for name, own in rows.items()}
    taught = {name for name in rows if name.startswith("coach")}
    figure, (axes,) = new_figure(1)
    panel(axes, seconds, reached, ("CPU seconds of training", metric), taught, min if signed(metric, 1.0) < 0 else max)
    save(figure, path)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("page", type=Path)
    p.add_argument("--appendix", type=Path, required=True)
    p.add_argument("--runs", nargs="+", type=Path, required=True)
    args = p.parse_args()
    try:
        for page in (args.page, args.appendix):
            check_marks(page, TOOL)
        lines = [line for file in args.runs for line in read_runs(file)]
        if not lines:
            raise ConfigError(f"no runs in {', '.join(map(str, args.runs))}: give files that a sweep has written")
        tasks: dict[str, dict[int, list[Line]]] = {}
        for line in lines:
            tasks.setdefault(line["config"], {}).setdefault(labels_of(line), []).append(line)
        short, full, plots = [], [], args.page.parent / "plots"
        plots.mkdir(exist_ok=True)
        for config, by_labels in tasks.items():
            name, first = Path(config).stem, next(iter(by_labels.values()))[0]
            rows = {labels: rows_of(own) for labels, own in sorted(by_labels.items())}
            shown = rows.get(SHOWN, next(iter(rows.values())))
            file = f"{args.page.stem}_{name}.svg"
            plot({n: row for n, row in shown.items() if not n.endswith(RAW)}, first["metric"], plots / file)
            short += [f"### {name}\n\n{first['data']} Metric: {first['metric']}.", markdown(*short_table(rows))]
            short.append(f"![{first['metric']} against time](plots/{file})")
            full.append(f"### {name}")
            for labels, own in rows.items():
                full.append(f"With {labels} labels:" if labels else "With all labels:")
                full.append(markdown(*full_table(own)))
        write_measured(args.page, TOOL, "\n\n".join(short))
        write_measured(args.appendix, TOOL, "\n\n".join(full))
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
