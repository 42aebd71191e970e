"""Write docs/coverage.md and the capabilities that the package ships, from results of `mdpd verify --json FILE`.

    python tools/coverage.py RESULTS.json [RESULTS.json ...]

Several files (one a zoo) are read as one. They must come from the same versions of all libraries.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mdpd_plugins.files import write_text
from mdpd_plugins.registry import Catalogue, ConfigError, MDPDError, load_catalogue
from mdpd_plugins.testing import CHECKS
from mdpd_plugins.testing.many import FAIL, PASS, UNAVAILABLE, matrix
from mdpd_plugins.zoos import verified
from mdpd_plugins.zoos.huggingface.models import model_types
from mdpd_plugins.zoos.special_cases import SPECIAL_CASES

ROOT = Path(__file__).parents[1]
INTRODUCTION = """\
# Coverage

Written from results of `mdpd verify`, not by hand:

    mdpd verify --zoo Z --json RESULTS.json
    python tools/coverage.py RESULTS.json [RESULTS.json ...]

The second command also writes `mdpd_plugins/zoos/verified.json`, which ships with the package: from it `mdpd
list-backbones --capability C` and `mdpd show` tell what was verified. Each backbone was built from its zoo's own
classes with random weights, reduced through the framework's own configuration (fewer blocks, narrower, a smaller
image), and checked in a process of its own. A row says what was run, and nothing was concluded from one backbone to
another.
"""
Row = dict[str, Any]


def read(files: Iterable[Path]) -> tuple[list[Row], dict[str, str]]:
    """Rows of all files by name, and the versions they were found with.

    Raises:
        ConfigError: a file that holds no results, or was made with other versions than the first.
    """
    rows: dict[str, Row] = {}
    versions: dict[str, str] | None = None
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found = {row["name"]: row for row in content["results"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{str(file)!r} holds no results of `mdpd verify --json`: {error}") from error
        if versions is not None and content["versions"] != versions:
            raise ConfigError(f"{str(file)!r} was made with {content['versions']}, and an earlier file with {versions}")
        versions = content["versions"]
        rows |= found
    return [rows[name] for name in sorted(rows)], versions or {}


def page(rows: list[Row], versions: dict[str, str], note: str = "") -> str:
    """The whole page."""
    catalogue = load_catalogue()
    lines = [
        INTRODUCTION,
        "Versions: " + ", ".join(f"{n} {v}" for n, v in versions.items()) + ".",
        *(["", note] if note else []),
        "",
        "| zoo | in the catalogue | run | pass | fail | unavailable |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    zoos = sorted({r["zoo"] for r in rows})
    for zoo in zoos:
        found = Counter(r["status"] for r in rows if r["zoo"] == zoo)
        counts = (len(catalogue.select(zoo)), sum(found.values()), found[PASS], found[FAIL], found[UNAVAILABLE])
        lines.append(f"| {zoo} | " + " | ".join(map(str, counts)) + " |")
    lines += ["", "## By what they read", "", *_by_part(rows, catalogue)]
    lines += ["", "## By check", "", "Passed of applicable.", "", "```", *matrix(rows), "```", ""]
    lines += ["| check | what must hold |", "| --- | --- |"]
    lines += [f"| {check.name} | {check.summary} |" for check in CHECKS]
    lines += ["", "## Capabilities", "", *_capabilities(rows, zoos)]
    lines += ["", "## By architecture", "", *_by_class(rows, "mmpretrain")]
    lines += ["", "## Not passed", ""]
    missed = [r for r in rows if r["status"] != PASS]
    lines += [f"- `{r['name']}` ({r['status']}): {_short(r['reason'])}" for r in missed] or ["None."]
    lines += ["", "## Architectures that needed code of their own", ""]
    lines += ["| architecture | why |", "| --- | --- |", *(f"| {n} | {why} |" for n, why in SPECIAL_CASES.items())]
    lines += ["", *_special_shares(catalogue), "", "## Passed", ""]
    for zoo in zoos:
        names = ", ".join(f"`{r['name'].partition('/')[2]}`" for r in rows if r["zoo"] == zoo and r["status"] == PASS)
        lines += [f"{zoo}: {names}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _parts(row: Row, catalogue: Catalogue) -> dict[str, str]:
    """What the row's backbone reads ("image", "text") -> how that part fared."""
    modality = catalogue.get(row["name"]).spec.modality if row["name"] in catalogue else "image"
    checks: dict[str, list[str]] = defaultdict(list)
    for key, outcome in row["checks"].items():
        checks[key.rpartition("/")[0] or modality].append(outcome["status"])
    # A part without checks fared as the whole row: it was not reached, or is not available here.
    return {
        part: (FAIL if FAIL in checks[part] else PASS) if part in checks else row["status"]
        for part in modality.split("-")
    }


def _by_part(rows: list[Row], catalogue: Catalogue) -> list[str]:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    classifiers = {f"huggingface/{name}" for name in model_types()}
    for row in rows:
        for part, status in _parts(row, catalogue).items():
            counts[row["zoo"], part][status] += 1
            if row["name"] in classifiers:
                counts["huggingface, types with a classifier", part][status] += 1
    lines = ["| zoo | reads | pass | of | share |", "| --- | --- | --- | --- | --- |"]
    for (zoo, part), found in sorted(counts.items()):
        total = sum(found.values())
        lines.append(f"| {zoo} | {part} | {found[PASS]} | {total} | {found[PASS] / total:.1%} |")
    return lines


def _capabilities(rows: list[Row], zoos: list[str]) -> list[str]:
    def count(zoo: str, capability: str) -> int:
        return sum(verified.Verification("", tuple(verified.exercised(r["checks"]))).has(capability) for r in of[zoo])

    of = {zoo: [r for r in rows if r["zoo"] == zoo] for zoo in zoos}
    lines = ["Backbones of which a part has it: its check ran and passed.", ""]
    lines += ["| capability | " + " | ".join(zoos) + " | meaning |", "| --- " * (len(zoos) + 2) + "|"]
    for name, (_, meaning) in verified.CAPABILITIES.items():
        lines.append(f"| {name} | " + " | ".join(str(count(zoo, name)) for zoo in zoos) + f" | {meaning} |")
    return lines


def _by_class(rows: list[Row], zoo: str) -> list[str]:
    """Passed of run by the class right below the model's: MMPretrain's backbone classes."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["zoo"] == zoo:
            chains = [chain for chain in row.get("architecture", {}).values() if len(chain) > 1]
            for name in {chain[1] for chain in chains} or {"not built"}:
                counts[name][row["status"]] += 1
    built = {name: found for name, found in counts.items() if name != "not built"}
    whole = sum(found[PASS] == sum(found.values()) for found in built.values())
    some = sum(found[PASS] > 0 for found in built.values())
    lines = [f"{zoo}: {len(built)} backbone classes, {some} with a model that passed, {whole} with all. Passed of run:"]
    listed = [f"{name} {found[PASS]}/{sum(found.values())}" for name, found in sorted(counts.items())]
    return [*lines, "", ", ".join(listed) + "." if listed else "None run."]


def _special_shares(catalogue: Catalogue) -> list[str]:
    """Special cases against families, whole and by zoo (a row names its zoo before the colon)."""
    families = Counter(zoo for zoo, _ in {(r.zoo, r.spec.family) for r in catalogue.select()})
    cases = Counter(name.partition(":")[0] for name in SPECIAL_CASES)
    lines = ["| zoo | special cases | families | share |", "| --- | --- | --- | --- |"]
    for zoo, count in sorted(families.items()):
        lines.append(f"| {zoo} | {cases[zoo]} | {count} | {cases[zoo] / count:.1%} |")
    total = sum(families.values())
    return [*lines, f"| all | {len(SPECIAL_CASES)} | {total} | {len(SPECIAL_CASES) / max(1, total):.1%} |"]


def _short(text: str, limit: int = 300) -> str:
    # Where a library lies on this machine is nobody's business.
    text = " ".join(re.sub(r"[^'\s]*/site-packages/", "", text).split()).replace("|", "\\|")
    return text if len(text) <= limit else text[:limit] + " ..."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "coverage.md")
    parser.add_argument("--verified", type=Path, default=verified.FILE, help="the package's own file by default")
    parser.add_argument("--note", default="", help="a sentence on what this run was, printed above the table")
    args = parser.parse_args()
    try:
        rows, versions = read(args.results)
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    catalogue = load_catalogue()
    own = [r for r in rows if r["name"] in catalogue and catalogue.get(r["name"]).distribution == verified.DISTRIBUTION]
    write_text(args.page, page(rows, versions, args.note))
    write_text(args.verified, verified.as_text(own, versions))
    print(f"wrote {args.page} and {args.verified}: {len(rows)} rows, {sum(r['status'] == PASS for r in rows)} passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
