"""python -m tools.layers: the diagram of docs/architecture.md, from the layers that tests/test_imports.py keeps."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
_DIAGRAM = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)


def allowed() -> dict[str, set[str]]:
    """Part of the project -> the parts that it may import, as the test has them."""
    spec = importlib.util.spec_from_file_location("layers_of_the_project", ROOT / "tests" / "test_imports.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ALLOWED


def direct(layers: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """(who, whom): without those that follow from others, because whom may also be reached in two steps."""
    beyond = {who: {far for near in whom for far in layers[near]} for who, whom in layers.items()}
    return sorted((who, whom) for who in layers for whom in layers[who] - beyond[who])


def diagram() -> str:
    """A mermaid flowchart; an arrow means "may import"."""
    lines = [f"    {who} --> {whom}" for who, whom in direct(allowed())]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```", ""])


def main() -> int:
    """Put the diagram into the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_DIAGRAM.sub(lambda _: diagram(), text, count=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
