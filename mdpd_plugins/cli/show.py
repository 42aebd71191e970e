"""Build one backbone without pretrained weights and show its structure."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from mdpd_plugins.registry import Registered, load_catalogue
from mdpd_plugins.versions import versions_of
from mdpd_plugins.zoos import verified


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a backbone, as `mdpd list-backbones` names it")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    # A name that does not exist is found out here, before a framework is imported.
    registered = load_catalogue().get(args.name)
    from mdpd_plugins import adapters

    description = {**adapters.describe(registered.name), "provided_by": registered.origin}
    description["verified"] = _verified(registered)
    if args.json:
        print(json.dumps(description, indent=2, default=str))
    else:
        for line in _lines(description):
            print(line)
    return 0


def _verified(registered: Registered) -> dict[str, Any]:
    """What the conformance kit found of a built-in backbone, beside what was seen of it just now."""
    here = verified.found_here(registered.name, present := versions_of(verified.DEPENDS))
    if here is not None:
        listed = ", ".join(f"{name} {version}" for name, version in present.items())
        return {
            "status": f"{here.status}, by `mdpd verify` here",
            "capabilities": list(here.capabilities),
            "with": listed,
        }
    found = verified.load()
    known = found.get(registered)
    if known is None:
        return {"status": f"not verified: `mdpd verify {registered.name}` does it", "capabilities": []}
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return {"status": known.status, "capabilities": list(known.capabilities), "with": versions}


def _lines(description: Mapping[str, Any]) -> list[str]:
    """One line a value; the entries of longer lists and of mappings on indented lines of their own."""
    lines = []
    for key, value in description.items():
        label = key.replace("_", " ")
        if isinstance(value, Mapping):
            lines += [f"{label}:", *(f"  {inner}: {_text(content)}" for inner, content in value.items())]
        elif isinstance(value, (list, tuple)) and not all(isinstance(v, (int, float)) for v in value):
            lines += [f"{label} ({len(value)}):", *(f"  {_text(entry)}" for entry in value)]
        else:
            lines.append(f"{label}: {_text(value)}")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        same = len(value) > 3 and all(entry == value[0] for entry in value)
        return f"{value[0]} (x {len(value)})" if same else ", ".join(map(_text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(content)}" for key, content in value.items())
    return str(value)
