"""Run the conformance kit on backbones, each in its small form and in a process of its own."""

from __future__ import annotations

import argparse
import sys
import time

from mdpd_plugins.registry import ConfigError, Registered, load_catalogue
from mdpd_plugins.versions import versions_of
from mdpd_plugins.zoos import verified


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="backbones, as `mdpd list-backbones` names them")
    parser.add_argument("--zoo", metavar="Z", help="all of this zoo")
    parser.add_argument("--family", metavar="F", help="all of this family")
    parser.add_argument("--search", metavar="WORDS", help="all with these words in name, family or summary")
    parser.add_argument("--all", action="store_true", help="the whole catalogue (hours)")
    parser.add_argument("--json", metavar="FILE", help="keep results here; what it already holds is not run again")
    parser.add_argument("--retry", action="store_true", help="run again what FILE says has failed")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time (default 1)")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds a backbone may take")
    parser.add_argument("--memory", type=float, default=4.0, metavar="GIB", help="GiB a backbone may allocate")


def run(args: argparse.Namespace) -> int:
    """0 if nothing failed, 1 otherwise."""
    chosen = _chosen(args)
    if args.jobs < 1 or args.timeout <= 0 or args.memory <= 0:
        raise ConfigError("--jobs, --timeout and --memory must be above zero")
    from mdpd_plugins.testing import many

    versions = versions_of(verified.DEPENDS)
    results = many.Results(args.json, versions)
    known = {n for n, row in results.rows.items() if not (args.retry and row["status"] == many.FAIL)}
    todo = [registered for registered in chosen if registered.name not in known]
    if len(todo) < len(chosen):
        print(f"{len(chosen) - len(todo)} are in {args.json} already", file=sys.stderr)
    frameworks = sorted({package for registered in todo for package in registered.spec.requires})
    limits = many.Limits(args.timeout, int(args.memory * 2**30))
    start = time.monotonic()
    for done, row in enumerate(many.verify(todo, limits=limits, jobs=args.jobs, preload=frameworks), 1):
        results.add(row)
        verified.remember_row(row, versions)
        left = (time.monotonic() - start) / done * (len(todo) - done)
        reason = f": {row['reason'][:200]}" if row["reason"] else ""
        print(
            f"[{done}/{len(todo)}, {_duration(left)} left] {row['status']} {row['name']} ({row['seconds']} s){reason}",
            file=sys.stderr,
            flush=True,
        )
    rows = [results.rows[registered.name] for registered in chosen]
    for line in many.matrix(rows):
        print(line)
    for registered, row in zip(chosen, rows, strict=True):
        if row["status"] != many.PASS:
            print(f"{row['status']} {row['name']} (of {registered.origin}): {row['reason']}")
    return 1 if any(row["status"] == many.FAIL for row in rows) else 0


def _chosen(args: argparse.Namespace) -> list[Registered]:
    catalogue = load_catalogue()
    chosen = {name: catalogue.get(name) for name in args.names}
    if args.all or args.zoo or args.family or args.search:
        found = catalogue.select(args.zoo, family=args.family, search=args.search)
        chosen.update({registered.name: registered for registered in found})
    if not chosen:
        raise ConfigError("nothing to verify: give names, or one of --zoo, --family, --search and --all")
    return list(chosen.values())


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
