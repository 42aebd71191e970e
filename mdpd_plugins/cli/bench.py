"""Compare methods on one configuration: training memory, seconds per step, inference latency."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mdpd_plugins.registry import ConfigError, closest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", type=Path)
    parser.add_argument("--methods", nargs="+", metavar="M", help="some of them (default: all)")
    parser.add_argument("--dtypes", nargs="+", default=[], metavar="T", help="each method in each of these types")
    parser.add_argument("--batch-size", type=int, metavar="N")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="timed cycles a method, taken in turn")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw memory against time here (svg, png, pdf)")
    parser.add_argument("--plan", action="store_true", help="only say what memory each method will need; nothing runs")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for all methods")


def run(args: argparse.Namespace) -> int:
    """Run the comparison and print it as a table."""
    from mdpd_plugins.adapters.storage.precision import chosen_type
    from mdpd_plugins.benchmark import report as bench_report
    from mdpd_plugins.benchmark.bench import COMPARED, bench
    from mdpd_plugins.engine import METHODS
    from mdpd_plugins.files import write_json
    from mdpd_plugins.training import read_overrides

    methods = args.methods or list(COMPARED)
    for method in methods:
        if method not in METHODS:
            raise ConfigError(f"there is no method {method!r} to compare: {closest(method, METHODS)}")
    for dtype in args.dtypes:
        chosen_type(dtype)
    if args.rounds < 1:
        raise ConfigError(f"--rounds {args.rounds}: at least one timed cycle is needed")
    for target in (args.json, args.plot):
        # Said now, and not when the work is done.
        if target is not None and not target.absolute().parent.is_dir():
            raise ConfigError(f"the folder of {str(target)!r} does not exist: make it, or name another")
    if args.plot and args.plot.suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(f"--plot {args.plot}: its name must end in .svg, .png or .pdf")
    options = read_overrides(args.cfg_options)
    if args.batch_size is not None:
        options["data.batch_size"] = args.batch_size
    if args.plan:
        return _plan(args, methods, options)
    found = bench(args.config, methods, options, device=args.device, rounds=args.rounds, dtypes=args.dtypes)
    if args.json:
        write_json(args.json, found)
    if args.plot:
        bench_report.plot(found, args.plot)
    bench_report.show(found)
    return 0


def _plan(args: argparse.Namespace, methods: list[str], options: dict[str, Any]) -> int:
    from mdpd_plugins.benchmark.bench import options_of, variants
    from mdpd_plugins.benchmark.report import label
    from mdpd_plugins.files import write_json
    from mdpd_plugins.planning.plan import plan, print_plans
    from mdpd_plugins.training.config import load_config

    plans, rows = {}, []
    for row in variants(methods, args.dtypes):
        name = label(row)
        print(f"planning {name}", file=sys.stderr, flush=True)
        plans[name] = plan(load_config(args.config, {**options, **options_of(row)}))
        rows.append({**row, **plans[name].as_dict()})
    if args.json:
        write_json(args.json, {"plans": rows, "config": str(args.config), "options": options})
    print_plans(plans)
    return 0
