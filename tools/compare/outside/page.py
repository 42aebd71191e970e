"""Write the measured part of "Beside peft and Trainer" in docs/memory.md from the JSON of `tools.compare outside`.

python -m tools.compare outside-page docs/memory.md docs/data/outside_*.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mdpd_plugins.benchmark.report import markdown
from mdpd_plugins.registry import MDPDError
from tools.compare.measured_pages import check_marks, write_measured
from tools.compare.outside.table import COLUMNS, cells

TOOL = "tools/compare/outside/page.py"


def section(file: Path, found: dict[str, Any]) -> str:
    """Command and table of one comparison."""
    about = found["environment"]
    options = " ".join(f"{k}={v}" for k, v in about["options"].items())
    command = (
        f"python -m tools.compare outside {about['config']} --rivals {' '.join(found['rivals'])} "
        f"--methods {' '.join(found['methods'])} --steps {found['steps']} --rounds {about['rounds']}"
        f"{' --cfg-options ' + options if options else ''} --json docs/data/{file.name}"
    )
    libraries = about["libraries"]
    versions = ", ".join(f"{n} {libraries[n]}" for n in ("transformers", "peft", "bitsandbytes") if n in libraries)
    return "\n".join(
        [
            f"### `{about['config']}`, batch {found['results'][0]['batch_size']}, {found['steps']} steps",
            "",
            f"`{command}`",
            f"({about['device']}, torch {about['torch']}, {versions})",
            "",
            markdown(COLUMNS, cells(found)),
        ]
    )


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("page", type=Path)
    p.add_argument("files", nargs="+", type=Path, metavar="JSON")
    args = p.parse_args()
    try:
        check_marks(args.page, TOOL)
    except MDPDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_measured(args.page, TOOL, "\n\n".join(section(f, json.loads(f.read_text())) for f in args.files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
