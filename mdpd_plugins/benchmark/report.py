"""What a benchmark found, as a table on screen, as Markdown and as a plot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mdpd_plugins.console import console
from mdpd_plugins.files import fresh_file

HEADER = (
    "method",
    "trainable",
    "training state (MiB)",
    "of full",
    "of lora",
    "s/step (min, median, max)",
    "time of lora's",
    "inference of plain",
)
STATE = "training state (MiB)"


def label(row: Mapping[str, Any]) -> str:
    """What a row is called: its method, and its type where several are compared."""
    return f"{row['method']}, {row['dtype']}" if "dtype" in row else str(row["method"])


def header(found: Mapping[str, Any]) -> list[str]:
    """Names of the columns: HEADER, and those of types where several were compared."""
    dtype = found["results"][0].get("dtype")
    method, *others = HEADER
    return [method, *others] if dtype is None else [method, "type", *others, f"time of {dtype}'s"]


def cells(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of text a method and type, under `header`; "-" where the method compared against was not run."""
    rows = {label(r): r for r in found["results"]}
    table: list[tuple[str, ...]] = []
    for r in rows.values():
        others = (rows.get(label({**r, "method": m}), {}) for m in ("full", "lora"))
        full, lora = (other.get("training_state_bytes") for other in others)
        state, s = r["training_state_bytes"], r["step_seconds"]
        table.append(
            (
                r["method"],
                *([r["dtype"]] if "dtype" in r else []),
                f"{r['trainable_parameters']:,}",
                f"{state / 2**20:.1f}",
                f"{state / full:.3f}" if full else "-",
                f"{state / lora:.3f}" if lora else "-",
                f"{s['min']:.2f}, {s['median']:.2f}, {s['max']:.2f}",
                f"{r['step_ratio_to_lora']:.2f}" if "step_ratio_to_lora" in r else "-",
                f"{r['inference_ratio_to_plain']:.2f}",
                *([f"{r['step_ratio_to_first_dtype']:.2f}"] if "dtype" in r else []),
            )
        )
    return table


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", "| --- |" + " --- |" * (len(header) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def show(found: Mapping[str, Any]) -> None:
    """Print the table."""
    from rich.table import Table

    title = "training state: peak bytes of a step above the frozen weights"
    table = Table(*header(found), title=title, box=None, header_style="bold", pad_edge=False)
    table.columns[0].no_wrap = True  # cut short, two methods look alike
    for column in table.columns[1:]:
        column.justify = "right"
    for row in cells(found):
        table.add_row(*row)
    console().print(table)


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Memory against time, one point a method. Methods that no other beats in both are joined (the Pareto front).

    Args:
        path: where to; its suffix says the format (svg, png, pdf).
    """
    rows = {label(r): r for r in found["results"]}
    memory = {m: r["training_state_bytes"] / 2**20 for m, r in rows.items()}
    seconds = {m: r["step_seconds"]["median"] for m, r in rows.items()}
    ours = {m for m in rows if m.startswith("mdpd")}
    figure, (axes,) = new_figure(1)
    panel(axes, memory, seconds, (STATE, "seconds per step (median)"), ours, best=min)
    save(figure, path)


def new_figure(panels: int) -> tuple[Any, Any]:
    """A figure and its panels, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 if panels == 1 else 6.5 * panels, 5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def save(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all; the same figure gives the same file."""
    from matplotlib import rc_context

    # Without the date, and with names that are not drawn at random.
    with rc_context({"svg.hashsalt": "mdpd"}), fresh_file(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None} if path.suffix == ".svg" else None)


def front(x: Mapping[str, float], y: Mapping[str, float], best=min) -> list[str]:
    """Methods that no other beats in both, by increasing x (lower is better); y is better if `best` picks it."""
    kept: list[str] = []
    for method in sorted(x, key=lambda m: (x[m], y[m] if best is min else -y[m])):
        if not kept or (y[method] != y[kept[-1]] and best(y[method], y[kept[-1]]) == y[method]):
            kept.append(method)
    return kept


def panel(
    axes: Any, x: Mapping[str, float], y: Mapping[str, float], labels: tuple[str, str], ours: Collection[str], best
) -> None:
    """One point a method, x on a logarithmic scale, the front as a line.

    Args:
        labels: of both axes. ours: methods drawn in another colour. best: as for `front`.
    """
    kept = front(x, y, best)
    axes.plot([x[m] for m in kept], [y[m] for m in kept], "--", color="0.7", zorder=0)
    for method in x:
        axes.scatter(x[method], y[method], color="tab:red" if method in ours else "tab:blue")
        axes.annotate(method, (x[method], y[method]), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.3)


__all__ = [
    "HEADER",
    "STATE",
    "cells",
    "front",
    "header",
    "label",
    "markdown",
    "new_figure",
    "panel",
    "plot",
    "save",
    "show",
]
