"""Write docs/coverage.md from the results of `mdpd verify --json FILE`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from mdpd_plugins.adapters import SPECIAL_CASES
from mdpd_plugins.registry import load_catalogue
from mdpd_plugins.testing import CHECKS
from mdpd_plugins.testing.sweep import FAIL, PASS, UNAVAILABLE, matrix


def page(results: dict[str, Any], note: str = "") -> str:
    """The whole page."""
    rows = results["results"]
    catalogue = load_catalogue()
    lines = [
        "# Coverage",
        "",
        "Written by `python tools/coverage.py RESULTS docs/coverage.md` from results of `mdpd verify`, not by hand.",
        "Each backbone was built from its zoo's own classes with random weights, reduced through the framework's own",
        "configuration (fewer blocks, narrower, a smaller image), and checked in a process of its own. A row says what",
        "was run, and nothing was concluded from one backbone to another.",
        "",
        "Versions: " + ", ".join(f"{n} {v}" for n, v in results["versions"].items()) + ".",
        *(["", note] if note else []),
        "",
        "| zoo | in the catalogue | run | pass | fail | unavailable |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for zoo in sorted({r["zoo"] for r in rows}):
        found = Counter(r["status"] for r in rows if r["zoo"] == zoo)
        counts = (len(catalogue.select(zoo)), sum(found.values()), found[PASS], found[FAIL], found[UNAVAILABLE])
        lines.append(f"| {zoo} | " + " | ".join(map(str, counts)) + " |")
    lines += ["", "## By check", "", "Passed of applicable.", "", "```", *matrix(rows), "```", ""]
    lines += ["| check | what must hold |", "| --- | --- |"]
    lines += [f"| {check.name} | {check.summary} |" for check in CHECKS]
    lines += ["", "## Not passed", ""]
    missed = [r for r in rows if r["status"] != PASS]
    lines += [f"- `{r['name']}` ({r['status']}): {_short(r['reason'])}" for r in missed] or ["None."]
    lines += ["", "## Architectures that needed code of their own", ""]
    lines += ["| architecture | why |", "| --- | --- |", *(f"| {n} | {why} |" for n, why in SPECIAL_CASES.items())]
    families = {(r.zoo, r.spec.family) for r in catalogue.select()}
    share = len(SPECIAL_CASES) / max(1, len(families))
    lines += ["", f"{len(SPECIAL_CASES)} of {len(families)} families in the catalogue ({share:.1%}).", ""]
    lines += ["## Passed", ""]
    for zoo in sorted({r["zoo"] for r in rows}):
        names = ", ".join(f"`{r['name'].partition('/')[2]}`" for r in rows if r["zoo"] == zoo and r["status"] == PASS)
        lines += [f"{zoo}: {names}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _short(text: str, limit: int = 300) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= limit else text[:limit] + " ..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--note", default="", help="a sentence on what this run was, printed above the table")
    args = parser.parse_args()
    args.page.write_text(page(json.loads(args.results.read_text(encoding="utf-8")), args.note), encoding="utf-8")


if __name__ == "__main__":
    main()
