"""Explain the keys of a configuration: type, default, range and meaning of one key, a section, or all."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--explain", metavar="KEY", help="a key such as train.max_epochs, or a section such as distill")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    # Imported here, so that --help answers at once.
    from mdpd_plugins.training.explain import explain, sections

    found = list(sections().values()) if args.explain is None else explain(args.explain)
    if args.json:
        print(json.dumps([asdict(section) for section in found], indent=2))
        return 0
    for section in found:
        if len(section.keys) > 1:
            print(f"{section.name}: {section.about}" if section.name else section.about)
        for key in section.keys:
            allowed = f"; {key.allowed}" if key.allowed else ""
            print(f"{key.name} = {key.default}  ({key.kind}{allowed})")
            print(f"    {key.about}")
    return 0
