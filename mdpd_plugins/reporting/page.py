"""The report: everything gathered, put into the template, and written as one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader
from mmengine.device import get_device

from mdpd_plugins.engine.learned import load_learned
from mdpd_plugins.files import without_home, write_text
from mdpd_plugins.registry.errors import ConfigError
from mdpd_plugins.reporting.attention import Attention, measure_attention
from mdpd_plugins.reporting.charts import Chart, bars, curves, layer_bars, layer_line
from mdpd_plugins.reporting.costs import PARTS, Costs, benchmark_costs, planned_costs
from mdpd_plugins.reporting.drift import LayerDrift, drift, norm_values, updated_weights
from mdpd_plugins.reporting.examples import find_examples
from mdpd_plugins.reporting.history import Record, read_record
from mdpd_plugins.reporting.progress import catch_up, loss_charts, metric_charts
from mdpd_plugins.training.card import random_notice
from mdpd_plugins.training.checkpoints import load_run
from mdpd_plugins.training.experiment import Experiment, build_experiment

REPORT = "report.html"


def write_report(work_dir: Path, out: Path | None = None, *, bench: Path | None = None) -> Path:
    """Write the page about a work directory's newest checkpoint. Nothing else in the folder is touched.

    Args:
        out: the file; None for WORK_DIR/report.html. It appears whole or not at all.
        bench: what `mdpd bench --json` wrote, to take memory and time from instead of plans.

    Returns:
        Where the page lies.

    Raises:
        ConfigError: the folder holds no run with a checkpoint, `out` cannot be written, or `bench` is no benchmark.
        MDPDError: the run's data or weights are not there any more.
    """
    record = read_record(work_dir)
    target = out or work_dir / REPORT
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise ConfigError(f"--out {str(target)!r}: a file in a folder that exists is meant, such as report.html")
    costs = benchmark_costs(bench, record) if bench else planned_costs(record)
    experiment = build_experiment(record.config)
    began, start = experiment.adapter.origin, norm_values(experiment.adapter)
    state = load_run(experiment, record.checkpoint, resuming=False)
    load_learned(experiment.distiller, state, repr(str(record.checkpoint)))
    origin = experiment.adapter.origin
    experiment.distiller.to(get_device())
    context = {
        **_overview(record, experiment, origin),
        **_progress(record, experiment.task.main_metric),
        "loss_charts": _loss_charts(record),
        **_attention(measure_attention(experiment)),
        **_drift(experiment, start, began, origin),
        **_costs(costs, record),
        "examples": find_examples(experiment),
        "by_class": record.summary.get("by_class") if record.summary else None,
    }
    pages = Environment(loader=PackageLoader("mdpd_plugins.reporting", ""), autoescape=True, trim_blocks=True)
    pages.lstrip_blocks = True
    text = pages.get_template("report.html.j2").render(context)
    try:
        write_text(target, without_home(text))
    except OSError as error:
        raise ConfigError(f"{str(target)!r} cannot be written ({error.strerror}): name another with --out") from error
    return target


def _overview(record: Record, experiment: Experiment, origin: str) -> dict[str, Any]:
    distiller = experiment.distiller
    return {
        "record": record,
        "config": record.config,
        "summary": record.summary,
        "method": record.config.distill.get("method", "mdpd"),
        "backbone": experiment.adapter.name,  # of a pair, both towers'
        "steps": experiment.max_steps,
        "origin": origin,
        "random_notice": random_notice(origin),
        "data": experiment.source.description,
        "has_side": distiller.side is not None,
        "trained": sum(p.numel() for p in distiller.trainable.values()),
        "side_parameters": sum(p.numel() for p in distiller.side_parameters()),
        "backbone_parameters": sum(p.numel() for p in experiment.adapter.parameters().values()),
        "last_metrics": {name: points[-1][1] for name, points in record.scalars.metrics.items()},
        "updates": distiller.settings.backbone_update,
        "settings": record.config.pretty_text,
    }


def _progress(record: Record, main: str) -> dict[str, Any]:
    found = catch_up(record.scalars.metrics, main)
    charts = []
    for metric, lines in metric_charts(record.scalars.metrics).items():
        name = metric.replace("_", " ")
        mark = found.first if found and found.metric == metric else None
        charts.append(curves(name, f"metric-{metric}", lines, name, mark))
    return {"catch_up": found, "metric_charts": charts}


def _loss_charts(record: Record) -> list[Chart]:
    charts = loss_charts(record.scalars.losses)
    return [curves(kind, f"loss-{kind.replace('/', '-')}", lines, "loss") for kind, lines in charts.items()]


def _attention(found: Attention | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"attention": None, "no_attention": found, "agreement_chart": None}
    chart = None
    if found.agreements:
        before: list[Any] = found.split_agreements or [None] * len(found.agreements)
        rows = [
            [str(i), found.role(i), f"{now:.3f}", "" if then is None else f"{then:.3f}"]
            for i, (now, then) in enumerate(zip(found.agreements, before, strict=True))
        ]
        groups = {"imitated": found.imitated, "generated": found.generated}
        header = ["layer", "feature distillation", "agreement now", "when the split was chosen"]
        chart = layer_line("Agreement per layer", "agreement", found.agreements, groups, header, rows)
    return {"attention": found, "no_attention": "", "agreement_chart": chart}


def _drift(experiment: Experiment, start: dict[str, torch.Tensor], began: str, origin: str) -> dict[str, Any]:
    adapter = experiment.adapter
    before, after = updated_weights(adapter)
    updates = _drift_chart("Change of updated weights", "updates", "||W' - W|| / ||W||", drift(adapter, before, after))
    if began != origin:
        # What the run began with is not available here, so there is nothing to compare norms with.
        return {"drift_chart": None, "other_start": began, "updates_chart": updates}
    layers = drift(adapter, start, norm_values(adapter))
    norms = _drift_chart("Relative change per layer", "drift", "||p - p0|| / ||p0||", layers)
    return {"drift_chart": norms, "other_start": "", "drift": layers, "updates_chart": updates}


def _drift_chart(title: str, name: str, unit: str, layers: list[LayerDrift]) -> Chart | None:
    header = ["layer", "block", "parameters", "relative change", "largest change"]
    values = {layer.name: layer.relative for layer in layers}
    return layer_bars(title, name, values, unit, header, [_drift_row(layer) for layer in layers]) if layers else None


def _drift_row(layer: LayerDrift) -> list[str]:
    largest = f"{layer.largest} ({layer.change:.3g})" if layer.change else "none"
    return [layer.name, layer.place, f"{layer.parameters:,}", f"{layer.relative:.4f}", largest]


def _costs(costs: Costs, record: Record) -> dict[str, Any]:
    parts = {
        name: {PARTS[part]: size / 2**20 for part, size in memory.items()} for name, memory in costs.memory.items()
    }
    own = sum(costs.memory.get(costs.ours, {}).values())
    rows = []
    for name, memory in costs.memory.items():
        total = sum(memory.values())
        sizes = [f"{size / 2**20:,.2f}" for size in (*memory.values(), total)]
        rows.append([name, *sizes, f"{own / total:.2f}" if own and total else ""])
    header = ["method", *PARTS.values(), "together (MiB)", "this run's share of it"]
    chart = None
    if parts:
        chart = bars("Training state", "memory", parts, "MiB above the frozen weights", costs.ours, header, rows)
    return {"costs": costs, "memory_chart": chart, "time_charts": _time_charts(costs)}


def _time_charts(costs: Costs) -> Sequence[Chart]:
    if not costs.times:
        return ()
    seconds = {row["method"]: {"seconds": row["seconds"]["median"]} for row in costs.times}
    ratios = {row["method"]: {"ratio": row["ratio"]} for row in costs.times}
    spread = [[r["method"], *(f"{r['seconds'][k]:.3f}" for k in ("min", "median", "max"))] for r in costs.times]
    rows = [[r["method"], f"{r['ratio']:.2f}"] for r in costs.times]
    ours = costs.ours
    return (
        bars("Seconds a step", "seconds", seconds, "median seconds", ours, ["method", "min", "median", "max"], spread),
        bars("Inference latency", "latency", ratios, "times the plain backbone's", ours, ["method", "ratio"], rows),
    )


__all__ = ["write_report"]
