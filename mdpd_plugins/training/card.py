"""The model card and the summary: what was trained, on what, from which weights, and how well it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mdpd_plugins.adapters.built import RANDOM
from mdpd_plugins.adapters.quantized import NONE
from mdpd_plugins.console import console
from mdpd_plugins.files import without_home
from mdpd_plugins.training.coach_files import coach_name

TITLE = ", fine-tuned with Masked Dual Path Distillation"


def random_notice(origin: str) -> str:
    """A loud line if training began from random weights, otherwise nothing."""
    if not origin.startswith(RANDOM):
        return ""
    return (
        f"RANDOM WEIGHTS: the backbone was not pretrained ({origin}). Its accuracy says nothing about the method; "
        f"give a checkpoint with backbone.pretrained, or make the hub reachable."
    )


def untrained_notice(trained: int) -> str:
    """A loud line if the run trained nothing that the export holds, otherwise nothing."""
    if trained:
        return ""
    return (
        "UNTRAINED EXPORT: this method trains the side network alone, and an export holds the plain backbone: it is "
        "the one that training began with, its output layer included. Metrics of the side path are not the export's: "
        "`mdpd export WORK_DIR OUT --keep-side` writes the backbone together with its side network."
    )


def write_card(folder: Path, summary: dict[str, Any]) -> None:
    """README.md of an exported model."""
    trained = summary["parameters"]
    notice = " ".join(filter(None, (random_notice(summary["weights"]), untrained_notice(trained["backbone_trained"]))))
    metrics = "\n".join(f"| {key} | {value:.4f} |" for key, value in summary["metrics"].items())
    backbone, side = f"{trained['backbone_trained']:,} of {trained['backbone']:,}", f"{trained['side']:,}"
    text = f"""# {summary["backbone"]}{TITLE}

{f"**{notice}**{chr(10) * 2}" if notice else ""}A plain {summary["zoo"]} model: {summary["load_with"]} \
loads it without any other package.

- Method: {summary["method"]} ({summary["steps"]} steps). Trained in the backbone: {backbone} parameters; a side \
network of {side} parameters was trained beside it and thrown away.
- Data: {summary["data"]}
- Examples: {_sizes(summary["examples"])}
{_taught(summary["coach"])}- Classes: {_names(summary["classes"])}
- Weights it started from: {summary["weights"]}
- Settings: seed {summary["seed"]}; everything else is in `config.py` of the work directory.

| metric ({summary["eval_split"]} split) | value |
| --- | --- |
{metrics}
{f"{chr(10)}{summary['usage']}{chr(10)}" if summary["usage"] else ""}"""
    (folder / "README.md").write_text(without_home(text))


def _taught(coach: dict[str, Any]) -> str:
    """A line on the coach, if one taught."""
    if not coach:
        return ""
    name, more = coach_name(coach), f" and {coach['unlabelled']:,} without" if coach["unlabelled"] else ""
    return (
        f"- Coach: {name} ({coach['metric']} {coach['scores'][name]:.4f} on val), which learned "
        f"first and taught on {coach['labelled']:,} examples with labels{more}\n"
    )


def _names(classes: list[str]) -> str:
    """Class names, those with a comma of their own in quotes."""
    shown = [json.dumps(name, ensure_ascii=False) if "," in name or '"' in name else name for name in classes[:50]]
    more = f", and {len(classes) - 50} more" if len(classes) > 50 else ""
    return ", ".join(shown) + more or "none"


def _sizes(examples: dict[str, Any]) -> str:
    """How many examples each split holds, and what looked wrong with them."""
    sizes = ", ".join(f"{split} {about['size']:,}" for split, about in examples["splits"].items())
    return "; ".join([sizes, *examples["warnings"]])


def print_summary(summary: dict[str, Any]) -> None:
    """The table at the end of a run."""
    from rich.table import Table

    table = Table(title=f"{summary['method']} on {summary['backbone']}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in summary["metrics"].items():
        path, _, metric = key.partition("/")
        table.add_row(f"{metric}, {path} path", f"{value:.4f}")
    if coach := summary["coach"]:
        scores = ", ".join(f"{kind} {score:.4f}" for kind, score in coach["scores"].items())
        table.add_row("coach", f"{coach_name(coach)} ({coach['metric']} on val: {scores})")
        table.add_row(f"{coach['metric']}, coach kept", f"{coach['kept']:.4f}")
        table.add_row("taught on", f"{coach['labelled']:,} labelled, {coach['unlabelled']:,} unlabelled examples")
    counts = {key: f"{value:,}" for key, value in summary["parameters"].items()}
    backbone = f"{counts['backbone_trained']} in the backbone (of {counts['backbone']})"
    table.add_row("trained parameters", f"{backbone}, {counts['side']} in the side network")
    memory = summary["memory"]
    if memory:
        line = f"{memory['total'] / 2**20:.1f} MiB above the frozen weights"
        if "cuda_peak" in memory:
            line += f"; {memory['cuda_peak'] / 2**20:.1f} MiB allocated on the GPU at most"
        table.add_row("training state", line)
        if "weights_peak_by_process" in memory:
            most = max(memory["weights_peak_by_process"]) / 2**20
            table.add_row("sharded weights", f"at most {most:.1f} of {memory['weights'] / 2**20:.1f} MiB in a process")
    fading = summary["fading"]
    # Merging low-rank updates into the matrices rounds once more.
    change = "bit for bit" if fading["outputs_equal"] else f"up to {fading['largest_difference']:.1e}"
    times = f"{fading['latency_ratio']:.2f} times the plain backbone's time"
    if fading["quantization"] != NONE:
        of = f"({change}, of at most {fading['largest_output']:.1f})"
        why = (
            "what quantising the sums took away"
            if fading["exported_quantized"]
            else f"what {fading['quantization']} took away"
        )
        change = f"but for {why} {of}"
        for key, value in summary["quantized_metrics"].items():
            table.add_row(f"{key.partition('/')[2]}, quantised as trained", f"{value:.4f}")
    table.add_row("fading", f"outputs unchanged {change}; backbone with side network takes {times}")
    table.add_row("weights from", summary["weights"])
    table.add_row("exported to", summary["export"])
    table.add_row("loads with", summary["load_with"])
    out = console()
    out.print(table)
    for notice in (
        random_notice(summary["weights"]),
        untrained_notice(summary["parameters"]["backbone_trained"]),
    ):
        if notice:
            out.print(notice, style="bold red")


__all__ = ["print_summary", "random_notice", "write_card"]
