"""Write the measured part of docs/memory.md from the JSON of `mdpd bench` and `tools/compare/memory_growth.py`.

    python -m tools.compare memory docs/memory.md --bench docs/data/bench_*.json --scaling docs/data/scaling_*.json \\
        --cached docs/data/cached_*.json

Plots land in docs/plots.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mdpd_plugins.benchmark.growth import slope
from mdpd_plugins.benchmark.report import cells, header, markdown, plot
from mdpd_plugins.registry import MDPDError
from tools.compare.measured_pages import check_marks, write_measured

TOOL = "tools/compare/memory_page.py"


def bench_section(file: Path, found: dict[str, Any], plots: Path) -> str:
    """Table, plot and ratios of one benchmark."""
    environment = found["environment"]
    columns, rows = header(found), cells(found)
    plots.mkdir(exist_ok=True)
    picture = plots / f"{file.stem}.svg"
    plot(found, picture)
    batch = found["results"][0]["batch_size"]
    methods = " ".join(dict.fromkeys(r["method"] for r in found["results"]))
    dtypes = " ".join(dict.fromkeys(r["dtype"] for r in found["results"] if "dtype" in r))
    options = " ".join(f"{k}={v}" for k, v in environment["options"].items())
    lines = [
        f"### `{environment['config']}`, batch {batch}",
        "",
        f"`mdpd bench {environment['config']} --methods {methods}{' --dtypes ' + dtypes if dtypes else ''} "
        f"--rounds {environment['rounds']}"
        f"{' --cfg-options ' + options if options else ''} --json docs/data/{file.name}`",
        f"({environment['device']}, torch {environment['torch']})",
        "",
        markdown(columns, rows),
        "",
        *ratios(found),
        "",
        f"![memory against time](plots/{picture.name})",
    ]
    return "\n".join(lines)


def ratios(found: dict[str, Any]) -> list[str]:
    """The comparisons that decide whether the method has a place."""
    rows = {r["method"]: r for r in found["results"]}

    def state(a: str, b: str) -> str:
        return f"{rows[a]['training_state_bytes'] / rows[b]['training_state_bytes']:.3f}"

    lines = []
    for method in ("mdpd", "mdpd_low_rank", "mdpd_low_memory"):
        if {method, "full", "lora", "lora_checkpointed"} <= set(rows):
            r = rows[method]
            lines.append(
                f"- `{method}`: training state {state(method, 'full')} of full fine-tuning's, {state(method, 'lora')} "
                f"of LoRA's, {state(method, 'lora_checkpointed')} of checkpointed LoRA's; time per step "
                f"{r['step_ratio_to_lora']:.2f} of LoRA's, {r['step_ratio_to_lora_checkpointed']:.2f} of checkpointed "
                f"LoRA's; latency of the export {r['inference_ratio_to_plain']:.2f} of the plain backbone's."
            )
    if "ladder" in rows:
        kept = rows["ladder"]["inference_ratio_to_plain"]
        lines.append(
            f"- A ladder with its side network kept takes {kept:.2f} of the plain backbone's latency: fading saves "
            f"{1 - 1 / kept:.1%} of it (the paper reports 25.2 % for vision, 22.5 % for language)."
        )
    return lines


def scaling_section(file: Path, found: dict[str, Any]) -> str:
    """Table of one scaling run, with the slope of every method."""
    results = found["results"]
    methods = list(dict.fromkeys(r["method"] for r in results))
    values = sorted({r["value"] for r in results})
    rows = []
    for method in methods:
        own = {r["value"]: r for r in results if r["method"] == method}
        rise, start, off = slope([(v, own[v]["training_state_bytes"]) for v in values])
        states = [f"{own[v]['training_state_bytes'] / 2**20:.1f}" for v in values]
        in_units = rise / own[values[0]]["hidden_state_bytes"] if "batch" not in found["setting"] else None
        each = f"{rise / 2**20:.2f}" + (f" ({in_units:.2f} U)" if in_units is not None else "")
        rows.append([method, *states, each, f"{start / 2**20:.1f}", f"{off:.1%}"])
    options = " ".join(f"{k}={v}" for k, v in found["options"].items())
    return "\n".join(
        [
            f"### Growth with `{found['setting']}` (`{found['config']}`{', ' + options if options else ''})",
            "",
            "Training state in MiB. U is one hidden state of the batch; the last columns are the least-squares line "
            "and the largest distance from it.",
            "",
            markdown(["method", *(str(v) for v in values), "for each more", "at zero", "off the line"], rows),
        ]
    )


def plan_section(file: Path, found: dict[str, Any]) -> str:
    """Table of one `mdpd bench --plan`."""
    rows = found["plans"]
    states = {r["method"]: r["training_state_bytes"] for r in rows}
    bases = [b for b in ("full", "lora", "lora_checkpointed") if b in states]
    table = [
        [r["method"], f"{r['trainable_parameters']:,}", f"{states[r['method']] / 2**20:.1f}"]
        + [f"{states[r['method']] / states[base]:.3f}" for base in bases]
        for r in rows
    ]
    header = ["method", "trainable", "training state (MiB)", *(f"of {base}" for base in bases)]
    title = f"### Planned: `{found['config']}`, batch {rows[0]['batch_size']}"
    options = " ".join(f"{k}={v}" for k, v in found["options"].items())
    command = f"mdpd bench {found['config']} --plan --methods {' '.join(states)} --cfg-options {options}"
    command += f" --json docs/data/{file.name}"
    return "\n".join([title, "", f"`{command}`", "", markdown(header, table)])


def cached_section(files: list[Path]) -> str:
    """Table of the seconds of each epoch with cached features."""
    found = [json.loads(f.read_text()) for f in files]
    rows = []
    for run in found:
        seconds = run["epoch_seconds"]
        slowest = max(seconds[1:])
        each = ", ".join(f"{s:.1f}" for s in seconds)
        rows.append([f"`{run['config']}`", run["method"], str(run["batch_size"]), each, f"{seconds[0] / slowest:.1f}"])
    header = ["configuration", "method", "batch", "seconds of each epoch", "first over slowest later one"]
    return "\n".join(["### Epochs with cached features", "", markdown(header, rows)])


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("page", type=Path)
    p.add_argument("--bench", nargs="*", type=Path, default=[])
    p.add_argument("--plan", nargs="*", type=Path, default=[], help="of mdpd bench --plan")
    p.add_argument("--scaling", nargs="*", type=Path, default=[])
    p.add_argument("--cached", nargs="*", type=Path, default=[], help="of tools/compare/cached_epochs.py")
    args = p.parse_args()
    try:
        check_marks(args.page, TOOL)
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    plots = args.page.parent / "plots"
    sections = [bench_section(f, json.loads(f.read_text()), plots) for f in args.bench]
    sections += [plan_section(f, json.loads(f.read_text())) for f in args.plan]
    sections += [scaling_section(f, json.loads(f.read_text())) for f in args.scaling]
    sections += [cached_section(args.cached)] if args.cached else []
    write_measured(args.page, TOOL, "\n\n".join(sections))
    return 0


if __name__ == "__main__":
    sys.exit(main())
