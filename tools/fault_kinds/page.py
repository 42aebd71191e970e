"""docs/reliability.md: how the cases ended, from their lines."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from mdpd_plugins.files import write_text
from tools.fault_kinds.attempt import GOOD, OUTCOMES, REFUSED, RIGHT

TITLES = {
    "kill": (
        "Kills",
        "SIGKILL at a random moment, up to five times in a row, with the same command after each, `--resume` where "
        "there is something to go on from. The smallest run of each library that has configurations; the same with "
        "a coach, which has two stages; and a sweep of two methods. Right: a run ends with the weights, metrics and "
        "exported file of a run that nobody killed, bit for bit, and nothing half-written has a final name; a sweep "
        "ends with the same lines, times apart.",
    ),
    "damage": (
        "Damage",
        "A file of an export or of a work directory has one bit changed, is cut, emptied, deleted, replaced by the "
        "same file of another run, or by a folder: every file, and each of these. Right: the same model, or report, "
        "as before. Refused: the command ends and names the file.",
    ),
    "configurations": (
        "Configurations",
        "One to three overrides with odd values at any key, through `mdpd train --dry-run`. Right: it ran. Refused: "
        "one line says what is wrong.",
    ),
    "inputs": (
        "Bad inputs",
        "Tables of any content and encoding; folders with pictures of every mode, cut short, animated, far too large, "
        "under any name, with loops of links; texts of every Unicode plane, empty, and of 100,000 words. Right: it was "
        "read. Refused: with a reason.",
    ),
    "plugins": (
        "Plugins",
        "Plugins that end, crash or disturb Python, beside a good one, listed twice. Right: both are listed. Refused: "
        "the bad one is set aside, and the good one is listed.",
    ),
    "tests": (
        "What tests try",
        "Each is a test of the suite, run by itself once more. Right: it passed.",
    ),
}


def write_page(lines: Path, page: Path) -> None:
    """Count outcomes by kind and subject, and write the tables."""
    tried = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    last = {(case["kind"], case["number"]): case for case in tried}  # of a case that was tried again
    cases = list(last.values())
    once = {(c["kind"], c["number"]) for c in tried if c["outcome"] not in GOOD}
    mended = sum(last[key]["outcome"] in GOOD for key in once)
    text = [
        "<!-- Written by python tools/faults.py page; do not edit. -->",
        "",
        "# What was tried to break it",
        "",
        "`python tools/faults.py KIND --cases N` tries what can go wrong and counts how it ends; each case is a line "
        "of [faults.jsonl](data/faults.jsonl). [safety.md](safety.md) says what is promised.",
        "",
        f"In all {len(cases):,} cases, of which {sum(c['outcome'] not in GOOD for c in cases):,} ended as none may. "
        f"{mended:,} of them did so when first tried; what was wrong has been mended, and they were tried again.",
    ]
    for kind, (title, meaning) in TITLES.items():
        own = [case for case in cases if case["kind"] == kind]
        if not own:
            continue
        bad = [outcome for outcome in OUTCOMES if outcome not in GOOD and any(c["outcome"] == outcome for c in own)]
        columns = [RIGHT, REFUSED, *bad]
        text += ["", f"## {title}", "", meaning, "", f"| on | cases | {' | '.join(columns)} |"]
        text += ["| --- | ---: |" + " ---: |" * len(columns)]
        for subject in sorted({case["subject"] for case in own}):
            counts = Counter(case["outcome"] for case in own if case["subject"] == subject)
            cells = [str(counts[column]) for column in columns]
            text.append(f"| {subject} | {sum(counts.values())} | {' | '.join(cells)} |")
    write_text(page, "\n".join(text) + "\n")
