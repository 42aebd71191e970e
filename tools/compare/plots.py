"""Plots of a task's results: against training time and memory with the Pareto front, and over training time."""

from __future__ import annotations

from pathlib import Path

from mdpd_plugins.benchmark.report import STATE, front, new_figure, panel, save
from tools.compare.results import Task
from tools.compare.statistics import spread


def fronts(task: Task) -> dict[str, list[str]]:
    """Cost ("time", "memory") -> methods that no other beats in both that cost and the metric, cheapest first."""
    best = min if task.sign < 0 else max
    reached = {method: cell.mean for method, cell in task.main.items()}
    costs = {"time": {method: cell.seconds for method, cell in task.main.items()}, "memory": _memory(task)}
    return {name: front(cost, {m: reached[m] for m in cost}, best) for name, cost in costs.items()}


def plot_costs(task: Task, path: Path) -> None:
    """The deployed path's metric against training time and against memory, one point a method, to an SVG file."""
    best = min if task.sign < 0 else max
    ours = {method for method, cell in task.main.items() if cell.ours}
    seconds, memory = {method: cell.seconds for method, cell in task.main.items()}, _memory(task)
    reached = {method: cell.mean for method, cell in task.main.items()}
    figure, panels = new_figure(2)
    panel(panels[0], seconds, reached, ("seconds of training", task.metric), ours, best)
    panel(panels[1], memory, {m: reached[m] for m in memory}, (STATE, task.metric), ours, best)
    save(figure, path)


def plot_curves(task: Task, path: Path) -> bool:
    """The metric over training time, one line a method that was trained at several lengths; False: there is none."""
    curves = {method: task.curve(method) for method in dict.fromkeys(method for method, _ in task.cells)}
    curves = {method: cells for method, cells in curves.items() if len(cells) > 1}
    if not curves:
        return False
    figure, (axes,) = new_figure(1)
    for method, cells in curves.items():
        deviations = [spread(cell.values())[1] or 0.0 for cell in cells]
        line = "-" if cells[0].ours else "--"
        seconds, means = [cell.seconds for cell in cells], [cell.mean for cell in cells]
        axes.errorbar(seconds, means, yerr=deviations, fmt=f"o{line}", capsize=2, label=method)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training")
    axes.set_ylabel(f"{task.metric} (mean and deviation over seeds)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, path)
    return True


def _memory(task: Task) -> dict[str, float]:
    return {method: cell.state for method, cell in task.main.items() if cell.state is not None}


__all__ = ["fronts", "plot_costs", "plot_curves"]
