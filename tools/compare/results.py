"""From the lines of a sweep to what they say: spread over seeds, paired comparisons, equal time, ranks over tasks."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeAlias

from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.tasks.scores import ERRORS
from tools.compare.result_lines import TUNING_SEED, main_metric, score
from tools.compare.statistics import Paired, mean_ranks, paired, spread

# The option whose values make the points of a curve over training time.
LENGTH = "train.max_epochs"
Row: TypeAlias = list[str]
# What switches logits distillation off -> the recipe with it.
_NO_LOGITS = {"distill.logits_distillation=False": "", "distill.method=mdpd_no_logits": "distill.method=mdpd"}


@dataclass(frozen=True)
class Cell:
    """One method on one task at one length of training, over its seeds.

    Attributes:
        method: its label. length: value of LENGTH, "" where the configuration's own was kept. runs: by seed.
    """

    method: str
    length: str
    runs: Mapping[int, Mapping[str, Any]]

    @property
    def first(self) -> Mapping[str, Any]:
        """The run of the first seed."""
        return next(iter(self.runs.values()))

    @property
    def ours(self) -> bool:
        """Whether it is the project's method or a variant of it."""
        return any(pair.startswith("distill.method=mdpd") for pair in self.first["overrides"])

    def values(self, path: str | None = None) -> list[float]:
        """Main metric of every run: of the deployed path, or of `path`; empty where there is none."""
        keys = {main_metric(run, path) for run in self.runs.values()}
        return [run["metrics"][key] for run in self.runs.values() for key in keys if key in run["metrics"]]

    @property
    def mean(self) -> float:
        """Mean over seeds of the deployed path's main metric."""
        return statistics.fmean(self.values())

    @property
    def seconds(self) -> float:
        """Mean cost of training: CPU seconds of its one thread, which other work does not change; on a GPU, seconds."""
        return statistics.fmean(r["cpu_seconds" if r["device"] == "cpu" else "seconds"] for r in self.runs.values())

    @property
    def state(self) -> float | None:
        """MiB that a step holds above the frozen weights, of the runs that counted it."""
        known = [run["memory"]["total"] / 2**20 for run in self.runs.values() if run["memory"]]
        return statistics.fmean(known) if known else None


@dataclass(frozen=True)
class Task:
    """All that was run on one task.

    Attributes:
        name: folder and name of the configuration; with the sweep's options where it was run with different ones.
        options: the sweep's options, but for the length. metric: the main one. cells: (method, length) -> runs.
    """

    name: str
    options: tuple[str, ...]
    metric: str
    cells: Mapping[tuple[str, str], Cell]

    @property
    def sign(self) -> int:
        """-1 if less of the metric is better."""
        return -1 if self.metric in ERRORS else 1

    @property
    def length(self) -> str:
        """The one length that tables are of: the configuration's own, else the longest."""
        lengths = {length for _, length in self.cells}
        return "" if "" in lengths else max(lengths, key=float)

    @property
    def main(self) -> dict[str, Cell]:
        """Method -> runs at that length."""
        return {method: cell for (method, length), cell in self.cells.items() if length == self.length}

    def curve(self, method: str) -> list[Cell]:
        """All lengths of a method, by their cost."""
        return sorted((cell for (m, _), cell in self.cells.items() if m == method), key=lambda cell: cell.seconds)


def tasks(runs: Iterable[Mapping[str, Any]], split: str = "test") -> list[Task]:
    """Group the lines of one split, without those that tuned.

    Raises:
        ConfigError: one label stands for two recipes, or a seed was run twice with different tuned values.
    """
    return _grouped([run for run in runs if run["split"] == split and run["seed"] != TUNING_SEED])


def validation_tasks(runs: Iterable[Mapping[str, Any]]) -> list[Task]:
    """Group the tuning runs that the grid's choice fell on, of the methods with the whole grid.

    An ablation that runs at another method's rate had fewer tries, and is left out.

    Raises:
        ConfigError: as `tasks`.
    """
    tried: dict[tuple[str, tuple[str, ...]], dict[str, list[Mapping[str, Any]]]] = {}
    for run in (run for run in runs if run["seed"] == TUNING_SEED):
        tried.setdefault((run["config"], tuple(run["options"])), {}).setdefault(run["method"], []).append(run)
    best = []
    for methods in tried.values():
        whole = max(map(len, methods.values()))
        best += [max(own, key=score) for own in methods.values() if len(own) == whole]
    return _grouped(best)


def _grouped(runs: Iterable[Mapping[str, Any]]) -> list[Task]:
    found: dict[tuple[str, tuple[str, ...]], dict[tuple[str, str], dict[int, Mapping[str, Any]]]] = {}
    for run in runs:
        options = dict(option.split("=", 1) for option in run["options"])
        length = options.pop(LENGTH, "")
        path, given = PurePath(run["config"]), tuple(f"{k}={v}" for k, v in options.items())
        name = f"{path.parent.name}/{path.stem}"
        seeds = found.setdefault((name, given), {}).setdefault((run["method"], length), {})
        other = next(iter(seeds.values()), run)
        if run["overrides"] != other["overrides"] or run["tuned"] != other["tuned"] or run["seed"] in seeds:
            raise ConfigError(
                f"two different runs of {run['method']} on {name} are to go into one row: {run['overrides']} "
                f"{run['tuned']} and {other['overrides']} {other['tuned']}. Give their files apart, or change a label"
            )
        seeds[run["seed"]] = run
    made = []
    names = [name for name, _ in found]
    for (name, given), groups in found.items():
        cells = {key: Cell(*key, dict(sorted(seeds.items()))) for key, seeds in groups.items()}
        alone = names.count(name) == 1
        full = name if alone else " ".join([name, *given])
        made.append(Task(full, given, next(iter(cells.values())).first["metric"], cells))
    return made


def method_rows(task: Task) -> tuple[Row, list[Row]]:
    """Header and rows: every method with what it reached and what it cost."""
    header = ["method", "seeds", f"{task.metric}, deployed path", f"{task.metric}, side path", "tuned"]
    header += ["trained parameters", "training state (MiB)", f"training ({_unit(task)})"]
    rows = []
    for cell in task.main.values():
        count = cell.first["parameters"]
        rows.append(
            [
                cell.method,
                str(len(cell.runs)),
                spread_text(cell.values()),
                spread_text(cell.values("side")),
                " ".join(cell.first["tuned"]) or "-",
                f"{count['backbone_trained'] + count['side']:,}",
                "-" if cell.state is None else f"{cell.state:.1f}",
                f"{cell.seconds:.1f}",
            ]
        )
    return header, rows


def path_rows(task: Task) -> tuple[Row, list[Row]]:
    """Header and rows: of runs with two paths, what each is right in, and what they are together."""
    header = ["method", "seeds", "backbone", "side", "mean of both", "right by either", "differ"]
    rows = []
    for cell in task.main.values():
        runs = [run for run in cell.runs.values() if run.get("paths")]
        if runs:
            own = [[run["metrics"][main_metric(run, path)] for run in runs] for path in ("backbone", "side")]
            together = [[run["paths"][name] for run in runs] for name in ("mean", "either", "differ")]
            rows.append([cell.method, str(len(runs)), *map(spread_text, [*own, *together])])
    return header, rows


def compare(task: Task, method: str, rival: str) -> Paired | None:
    """`method` minus `rival` over the seeds that both have, signed so that more is better; None without such seeds."""
    if not {method, rival} <= set(task.main):
        return None
    ours, theirs = task.main[method], task.main[rival]
    seeds = [seed for seed in ours.runs if seed in theirs.runs]
    values = [[c.runs[s]["metrics"][main_metric(c.runs[s])] * task.sign for s in seeds] for c in (ours, theirs)]
    return paired(*values) if seeds else None


def paired_rows(task: Task, pairs: Sequence[tuple[str, str]]) -> tuple[Row, list[Row]]:
    """Header and rows: the first of every pair against the second over the same seeds."""
    header = ["comparison", "pairs", "mean difference", "95 % interval", "p, paired t-test", "p, signed ranks"]
    compared = [(f"{method} - {rival}", compare(task, method, rival)) for method, rival in pairs]
    return header, [[name, *paired_text(found)] for name, found in compared if found]


def paired_text(found: Paired) -> Row:
    """Cells of a paired comparison."""
    interval = "-" if found.low is None or found.high is None else f"{found.low:+.4f} to {found.high:+.4f}"
    chances = ["-" if p is None else f"{p:.4f}" for p in (found.t_test, found.wilcoxon)]
    return [str(found.pairs), f"{found.mean:+.4f}", interval, *chances]


def over_tasks(found: Sequence[Task], pairs: Sequence[tuple[str, str]]) -> tuple[Row, list[Row]]:
    """Header and rows: wins and losses by the mean over seeds, and the differences of these means, paired by task."""
    header = ["comparison", "wins", "equal", "losses", "mean difference over tasks", "95 % interval"]
    header += ["p, paired t-test", "p, signed ranks"]
    rows = []
    for method, rival in pairs:
        both = [t for t in found if {method, rival} <= set(t.main)]
        if not both:
            continue
        ours, theirs = ([t.sign * t.main[m].mean for t in both] for m in (method, rival))
        means = list(zip(ours, theirs, strict=True))
        counts = [sum(a > b for a, b in means), sum(a == b for a, b in means), sum(a < b for a, b in means)]
        rows.append([f"{method} - {rival}", *map(str, counts), *paired_text(paired(ours, theirs))[1:]])
    return header, rows


def teaching_rows(found: Sequence[Task], pairs: Sequence[tuple[str, str]]) -> tuple[Row, list[Row]]:
    """Header and rows: what teaching brings, beside the room it has.

    The room is what the mean of both paths, the teacher, is right in above the backbone that it did not teach.

    Args:
        pairs: methods and their ablations; those count that only lack logits distillation, at the same rate.
    """
    header = ["task", "taught - untaught", "seeds", "teacher's room", "gain by teaching", "p, paired t-test"]
    rows = []
    for task in found:
        for method, rival in (pair for pair in pairs if set(pair) <= set(task.main)):
            ours, theirs = task.main[method], task.main[rival]
            given = {_NO_LOGITS.get(pair, pair) for pair in theirs.first["overrides"]} - {""}
            untaught = given == set(ours.first["overrides"]) != set(theirs.first["overrides"])
            room = [r["paths"]["mean"] - r["metrics"][main_metric(r)] for r in theirs.runs.values() if r.get("paths")]
            gain = compare(task, method, rival)
            if untaught and ours.first["tuned"] == theirs.first["tuned"] and room and gain:
                rows.append([task.name, f"{method} - {rival}", str(len(room)), f"{statistics.fmean(room):+.4f}"])
                rows[-1] += [f"{gain.mean:+.4f}", paired_text(gain)[3]]
    return header, rows


def rank_rows(found: Sequence[Task]) -> tuple[Row, list[Row]]:
    """Header and rows: the methods that every task has by their mean rank over tasks, with their mean on each."""
    scores = {t.name: {m: t.sign * c.mean for m, c in t.main.items()} for t in found}
    ranks = mean_ranks(scores)
    rows = [
        [method, f"{rank:.2f}", *(f"{t.main[method].mean:.4f}" for t in found)]
        for method, rank in sorted(ranks.items(), key=lambda item: item[1])
    ]
    return ["method", "mean rank", *(f"{t.name} ({t.metric})" for t in found)], rows


def within_rows(task: Task, rivals: Sequence[str], given: Sequence[float] = ()) -> tuple[Row, list[Row]]:
    """Header and rows: what each method reached in the same training time.

    Of every method the longest training that fits counts, whatever it reached: choosing the best would be choosing on
    the test split.

    Args:
        rivals: methods whose own time sets the limits. given: further limits, in seconds.
    """
    limits = {f"{s:g} s": float(s) for s in given}
    limits |= {f"{r}'s {task.main[r].seconds:.1f} s": task.main[r].seconds for r in rivals if r in task.main}
    rows = []
    for method in dict.fromkeys(method for method, _ in task.cells):
        row = [method]
        for limit in limits.values():
            fits = [cell for cell in task.curve(method) if cell.seconds <= limit]
            row.append(f"{spread_text(fits[-1].values())} in {fits[-1].seconds:.1f} s" if fits else "-")
        rows.append(row)
    return ["method", *(f"within {name}" for name in limits)], rows


def spread_text(values: Sequence[float]) -> str:
    """Mean and standard deviation; "-" of nothing."""
    if not values:
        return "-"
    mean, deviation = spread(values)
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def _unit(task: Task) -> str:
    return "CPU seconds" if all(c.first["device"] == "cpu" for c in task.cells.values()) else "seconds"


__all__ = [
    "LENGTH",
    "Cell",
    "Task",
    "compare",
    "method_rows",
    "over_tasks",
    "paired_rows",
    "path_rows",
    "rank_rows",
    "spread_text",
    "tasks",
    "teaching_rows",
    "validation_tasks",
    "within_rows",
]
