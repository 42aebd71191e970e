"""python -m tools.tried_cases docs/tried-cases.md: try what users of other libraries reported, and write the page.

    python -m tools.tried_cases docs/tried-cases.md
    python -m tools.tried_cases --case hidden_folders links_to_folders   # these alone, and no page

Cases follow reports in public trackers: the symptom is theirs, the words and the code are ours. The exit status is 1 if
one came out otherwise than expected.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Module of tools/tried_kinds -> heading on the page, in this order.
SUBJECTS = {
    "folders": "Folders and tables",
    "texts": "Tokenizers and texts",
    "steps": "Training steps",
    "checkpoints": "Checkpoints",
    "exports": "Exports",
    "runs": "Whole runs",
}


def known_cases() -> dict:
    """Name -> case, in the order of the page."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    for subject in SUBJECTS:
        import_module(f"tools.tried_kinds.{subject}")
    from tools.tried_kinds.case import CASES

    return {name: one for subject in SUBJECTS for name, one in CASES.items() if one.subject == subject}


def page_of(got: dict[str, str]) -> str:
    """The page, of what each case gave."""
    from tools.tried_kinds.case import TRACKERS

    cases = known_cases()
    wrong = [name for name, one in cases.items() if got[name] != one.expected]
    mended = sum(bool(one.at_first) for one in cases.values())
    text = [
        "<!-- Written by python -m tools.tried_cases docs/tried-cases.md; do not edit. -->",
        "",
        "# Cases from public reports",
        "",
        "What users of other libraries reported in public trackers, tried on this one with small models of the real "
        "architectures. The link is the report that a case follows; words and code are ours. Each row is a function in "
        "`tools/tried_kinds/`.",
        "",
        f"{len(cases)} cases: {len(cases) - len(wrong)} came out as expected, {len(wrong)} did not. {mended} of them "
        f"came out wrong when they were first tried; the kind of fault has been mended, and its tests keep it so.",
    ]
    for subject, title in SUBJECTS.items():
        text += ["", f"## {title}", "", "| what | report | expected | got |", "| --- | --- | --- | --- |"]
        for name, one in cases.items():
            if one.subject == subject:
                tracker, number = one.report.rsplit(" ", 1)
                link = f"[{one.report}](https://github.com/{TRACKERS[tracker]}/issues/{number})"
                came = "as expected" if got[name] == one.expected else f"**{got[name]}**"
                first = f" (at first: {one.at_first})" if one.at_first else ""
                cells = (one.what, link, one.expected, came + first)
                text.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(text) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, help="written when all cases were tried")
    parser.add_argument("--case", nargs="+", default=[], metavar="NAME", help="try these alone, and write nothing")
    args = parser.parse_args(arguments)
    cases = known_cases()
    if unknown := set(args.case) - set(cases):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    if args.page is None and not args.case:
        parser.error("give the page to write, or --case NAME")
    import torch

    torch.set_num_threads(1)
    got = {}
    with tempfile.TemporaryDirectory(prefix="mdpd_tried_", ignore_cleanup_errors=True) as folder:
        for name in args.case or cases:
            begun = time.monotonic()
            got[name] = cases[name].tried(Path(folder) / name)
            right = "as expected" if got[name] == cases[name].expected else "OTHERWISE"
            took = time.monotonic() - begun
            print(f"{right}: {name}: {got[name]} ({took:.1f} s)", file=sys.stderr, flush=True)
    if args.page is not None and not args.case:
        args.page.write_text(page_of(got), encoding="utf-8")
    return 0 if all(got[name] == cases[name].expected for name in got) else 1


if __name__ == "__main__":
    sys.exit(main())
