"""python -m tools.page_output PAGE ...: run the Python blocks of pages, and put what they print below them.

A page's blocks run from top to bottom in one namespace, in a temporary folder. Where a block ```python is followed by a
block ```text, that one gets what the first one prints: to show a block's output, put an empty one below it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<shown>.*?)```\n)?", re.DOTALL)


def run_page(text: str, name: str, namespace: dict[str, Any] | None = None) -> str:
    """The page with the output that its blocks print now, in place of the output that it shows.

    Args:
        text: of the page. name: for tracebacks. namespace: what its code finds already there.

    Raises:
        Whatever a block raises.
    """
    scope = {"__name__": "__main__"} if namespace is None else namespace
    with tempfile.TemporaryDirectory() as folder, _working_in(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")

        def rerun(block: re.Match[str]) -> str:
            printed = io.StringIO()
            # Empty lines in front, so that a traceback names the page's line.
            above = "\n" * text[: block.start("code")].count("\n")
            with contextlib.redirect_stdout(printed):
                exec(compile(above + block["code"], name, "exec"), scope)
            shown = "" if block["shown"] is None else f"\n```text\n{printed.getvalue()}```\n"
            return f"```python\n{block['code']}```\n{shown}"

        return _BLOCK.sub(rerun, text)


@contextlib.contextmanager
def _working_in(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main(arguments: list[str]) -> int:
    """Write the pages that changed, and say which."""
    for argument in arguments:
        path = Path(argument)
        text = path.read_text(encoding="utf-8")
        found = run_page(text, path.name)
        if found != text:
            path.write_text(found, encoding="utf-8")
            print(f"{path}: rewritten")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
