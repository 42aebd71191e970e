"""List the backbones that the installed plugins register. Imports no framework."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from mdpd_plugins.registry import MODALITIES, Catalogue, Registered, load_catalogue
from mdpd_plugins.zoos import verified

SLOW_PLUGIN_SECONDS = 1.0
COLUMNS = ("name", "zoo", "family", "modality", "provided_by", "verified")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--zoo", metavar="Z", help="only this zoo's")
    parser.add_argument("--modality", metavar="M", help=f"only this modality's: {', '.join(MODALITIES)}")
    parser.add_argument("--family", metavar="F", help="only this family's, such as vit")
    parser.add_argument(
        "--capability",
        action="append",
        default=[],
        metavar="C",
        help="only those that `mdpd verify` found to have it; several times: all of them. "
        f"One of {', '.join(verified.CAPABILITIES)}, or of one tower: text:padding",
    )
    parser.add_argument("--search", metavar="WORDS", help="only those with all these words in name, family or summary")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a backbone")


def run(args: argparse.Namespace) -> int:
    catalogue = load_catalogue()
    rows = [_row(registered) for registered in _selected(catalogue, args)]
    if args.json:
        print(json.dumps(rows, indent=2))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        _print_columns(rows)
    if not args.json:
        print(f"{len(rows)} backbone{'' if len(rows) == 1 else 's'}", file=sys.stderr)
        for entry in catalogue.unavailable:
            print(f"no {entry.zoo}: {entry.reason}; run: {entry.fix}", file=sys.stderr)
    for info in catalogue.plugins:
        # The built-in zoos read a large index once for each version, and keep it.
        if info.seconds > SLOW_PLUGIN_SECONDS and info.distribution != verified.DISTRIBUTION:
            print(
                f"note: plugin {info.plugin!r} of {info.distribution} took {info.seconds:.1f} s to load; `mdpd doctor` "
                "says what to do",
                file=sys.stderr,
            )
    if catalogue.skipped:
        names = ", ".join(dict.fromkeys(failure.plugin for failure in catalogue.skipped))
        count = len({(failure.plugin, failure.distribution) for failure in catalogue.skipped})
        print(
            f"warning: {count} plugin{'s' if count > 1 else ''} skipped ({names}); `mdpd doctor` shows why",
            file=sys.stderr,
        )
    return 0


def _selected(catalogue: Catalogue, args: argparse.Namespace) -> list[Registered]:
    wanted = [verified.check_capability(name) for name in args.capability]
    chosen = catalogue.select(args.zoo, args.modality, family=args.family, search=args.search)
    if not wanted:
        return chosen
    found = verified.load()
    if others := found.other_versions():
        print(f"note: capabilities were verified with {', '.join(others)}", file=sys.stderr)
    known = {registered.name: v for registered in chosen if (v := found.get(registered)) is not None}
    return [r for r in chosen if r.name in known and all(known[r.name].has(name) for name in wanted)]


def _row(registered: Registered) -> dict[str, Any]:
    known = verified.load().get(registered)
    return {
        "name": registered.name,
        "zoo": registered.zoo,
        "family": registered.spec.family,
        "modality": registered.spec.modality,
        "provided_by": registered.origin,
        "verified": known.status if known else "",
        "capabilities": list(known.capabilities) if known else [],
    }


def _print_columns(rows: list[dict[str, Any]]) -> None:
    """Aligned columns without colour or wrapping, for pipes and files."""
    widths = [max((len(row[column]) for row in rows), default=0) for column in COLUMNS]
    for row in rows:
        cells = (row[column].ljust(width) for column, width in zip(COLUMNS, widths, strict=True))
        print("  ".join(cells).rstrip())


def _print_table(rows: list[dict[str, Any]]) -> None:
    # Loading rich takes as long as everything else here together; a pipe does not need it.
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in COLUMNS:
        # The name is what people copy: other columns give way to it in a narrow terminal.
        keep = max(len(row["name"]) for row in rows) if column == "name" and rows else None
        table.add_column(column.replace("_", " "), no_wrap=True, overflow="ellipsis", min_width=keep)
    for row in rows:
        table.add_row(*(row[column] for column in COLUMNS))
    Console().print(table, markup=False)
