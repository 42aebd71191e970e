"""Put what commands print into the documents that show it.

    python tools/printed.py README.md docs/scale.md

A document marks a block with the command before it; the block's content is replaced by what the command writes to
standard output, run from the root of the checkout in a terminal of 80 columns:

    <!-- printed by: mdpd bench CONFIG --plan -->
    ```
    ...
    ```

--list only names the commands. A command that fails leaves its document as it was.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from mdpd_plugins.files import write_text

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- printed by: (?P<command>.+?) -->\n+```\w*\n)(?P<content>.*?)(\n```)", re.DOTALL)


def commands(text: str) -> list[str]:
    """The commands whose output a document shows."""
    return [found["command"] for found in BLOCK.finditer(text)]


def printed(command: str) -> str:
    """What a command writes to standard output.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "COLUMNS": "80", "PATH": path}
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def main() -> int:
    """0 if every document is current now, 1 if a command failed."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("documents", nargs="+", type=Path)
    p.add_argument("--list", action="store_true", help="name the commands and run none")
    args = p.parse_args()
    for document in args.documents:
        text = document.read_text(encoding="utf-8")
        if args.list:
            print("\n".join(commands(text)))
            continue
        try:
            new = BLOCK.sub(lambda found: f"{found[1]}{printed(found['command'])}{found[4]}", text)
        except subprocess.CalledProcessError as error:
            print(f"{document}: {error.cmd[-1]} failed:\n{error.stderr[-2000:]}", file=sys.stderr)
            return 1
        write_text(document, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
