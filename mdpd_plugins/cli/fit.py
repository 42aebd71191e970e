"""Find the best setting of a configuration that fits into a memory, without running a step."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mdpd_plugins.registry import ConfigError, closest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", type=Path)
    parser.add_argument(
        "--memory", required=True, metavar="SIZE", help="for weights and training, such as 8GB or 900MB"
    )
    parser.add_argument("--methods", nargs="+", metavar="M", help="to try, best first")
    parser.add_argument(
        "--input-sizes", nargs="+", type=int, default=[], metavar="N", help="smaller pictures to try, too"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write what was tried here")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for all of them")


def run(args: argparse.Namespace) -> int:
    """Plan settings until one fits, and print it as options of `mdpd train`."""
    from mdpd_plugins.engine import METHODS
    from mdpd_plugins.files import write_json
    from mdpd_plugins.planning import fit as planning
    from mdpd_plugins.training import load_config, read_overrides

    memory = planning.memory_of(args.memory)
    methods = args.methods or ()
    for method in methods:
        if method not in METHODS:
            raise ConfigError(f"there is no method {method!r} to try: {closest(method, METHODS)}")
    if wrong := [n for n in args.input_sizes if n < 1]:
        raise ConfigError(f"--input-sizes {wrong[0]}: at least 1 pixel")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {str(args.json)!r} does not exist: make it, or name another")
    config = load_config(args.config, read_overrides(args.cfg_options))

    def told(candidate: planning.Candidate) -> None:
        if candidate.plan is None:
            line = f"cannot be planned: {candidate.refused}"
        else:
            sizes = f"{candidate.plan.run / 1e9:.3f} GB, {candidate.plan.weights / 1e9:.3f} of it weights"
            line = f"{sizes}, {'fits' if candidate.fits(memory) else 'does not fit'}"
        print(f"{planning.as_options(candidate.options)}: {line}", file=sys.stderr, flush=True)

    best, tried = planning.fit(config, memory, methods=methods, sizes=args.input_sizes, told=told)
    assert best.plan is not None
    if args.json:
        rows = [
            {"options": c.options, "plan": c.plan.as_dict() if c.plan else None, "refused": c.refused} for c in tried
        ]
        write_json(args.json, {"memory": memory, "best": best.options, "tried": rows})
    print(f"a run of {best.plan.run / 1e9:.3f} GB, {best.plan.weights / 1e9:.3f} of it weights, in {args.memory}:")
    print(f"mdpd train {args.config} --cfg-options {planning.as_options(best.options)}")
    return 0
