"""Try what can go wrong, count how it ends, and write docs/reliability.md.

    python tools/faults.py kill --cases 600          # SIGKILL at random moments of runs and sweeps
    python tools/faults.py damage --cases 2304       # files of exports and of work directories
    python tools/faults.py configurations --cases 500
    python tools/faults.py inputs --cases 1500       # tables, pictures, texts
    python tools/faults.py plugins                   # that end, crash, loop or disturb Python
    python tools/faults.py tests                     # shortages, numbers, growth, two at once, network: what tests try
    python tools/faults.py all                       # one after the other: hours
    python tools/faults.py page                      # docs/reliability.md from the lines

Every case is a line of JSON in docs/data/faults.jsonl. The same command again goes on with the cases that are not there
yet. A case is drawn from its number: `--first N --cases 1` tries it once more (of inputs, from the first of its
fifty). The exit status is 1 if a case ended as none may.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
LINES = ROOT / "docs" / "data" / "faults.jsonl"
# Kind -> (module, function, cases by default)
KINDS = {
    "kill": ("kills", "cases", 600),
    "damage": ("damage", "cases", 2304),
    "configurations": ("inputs", "configurations", 500),
    "inputs": ("inputs", "cases", 1500),
    "plugins": ("plugins", "cases", 1000),  # as many as there are
    "tests": ("suite", "cases", 1000),  # as many as there are
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*KINDS, "all", "page"])
    parser.add_argument("--cases", type=int, metavar="N", help="how many there shall be in all")
    parser.add_argument("--first", type=int, metavar="N", help="try from this number on, whatever the lines hold")
    parser.add_argument("--out", type=Path, default=LINES, metavar="FILE", help="lines of JSON, appended to")
    args = parser.parse_args(arguments)
    from tools.fault_kinds.page import write_page

    if args.kind == "page":
        write_page(args.out, ROOT / "docs" / "reliability.md")
        return 0
    kinds = list(KINDS) if args.kind == "all" else [args.kind]
    return max(_try(kind, args.cases, args.first, args.out) for kind in kinds)


def _try(kind: str, cases: int | None, first: int | None, out: Path) -> int:
    """Try one kind, and keep its lines; 1 if a case ended as none may."""
    module, name, usual = KINDS[kind]
    total = usual if cases is None else cases
    if first is None:
        done = [line["number"] for line in read_lines(out) if line["kind"] == kind]
        numbers = range(max(done, default=-1) + 1, total)
    else:
        numbers = range(first, first + total)
    import tools.fault_kinds  # puts the tests' helpers on the path  # noqa: F401

    function: Callable[[Path, range], Iterator] = getattr(import_module(f"tools.fault_kinds.{module}"), name)
    from tools.fault_kinds.attempt import GOOD

    tried = wrong = 0
    with tempfile.TemporaryDirectory(prefix="mdpd_faults_", ignore_cleanup_errors=True) as folder:
        for case in function(Path(folder), numbers):
            line = {"kind": kind, **{key: value for key, value in asdict(case).items() if value != ""}}
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            tried += 1
            if case.outcome not in GOOD:
                wrong += 1
                print(json.dumps(line), file=sys.stderr, flush=True)
    print(f"{kind}: {tried} cases, {wrong} of them ended as none may", file=sys.stderr)
    return 1 if wrong else 0


def read_lines(path: Path) -> list[dict]:
    """The cases in a file of lines, oldest first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
