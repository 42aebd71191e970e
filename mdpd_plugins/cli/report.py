"""Write one HTML page about a training run: curves, attention, drift, memory and latency, examples."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("work_dir", metavar="WORK_DIR", type=Path, help="of a training run, finished or going on")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page to write (default: WORK_DIR/report.html)")
    parser.add_argument(
        "--bench", type=Path, metavar="JSON", help="memory and time from mdpd bench --json instead of plans"
    )


def run(args: argparse.Namespace) -> int:
    from mdpd_plugins.reporting import write_report

    page = write_report(args.work_dir, args.out, bench=args.bench)
    print(f"written to {page}")
    return 0
