"""Compare methods over seeds, resumably.

    python tools/sweep.py CONFIG --methods norm mdpd --seeds 0 1 2 --out RUNS.jsonl

With `--table RUNS.jsonl` alone: print the runs as Markdown tables.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mdpd_plugins.engine import METHODS
from mdpd_plugins.registry import MDPDError
from mdpd_plugins.training.sweep import markdown, read_runs, sweep


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config", nargs="?", type=Path)
    p.add_argument("--methods", nargs="+", choices=list(METHODS), default=["linear", "norm", "mdpd"])
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--out", type=Path, default=Path("work_dirs/sweep.jsonl"))
    p.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    p.add_argument("--table", type=Path, help="print this file's runs and stop")
    args = p.parse_args()
    try:
        if args.table:
            print(markdown(read_runs(args.table)))
            return 0
        if args.config is None:
            p.error("a config file is needed, or --table RUNS.jsonl")
        options = dict(option.split("=", 1) for option in args.cfg_options)
        print(markdown(sweep(args.config, args.methods, args.seeds, args.out, options)))
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
