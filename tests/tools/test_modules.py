"""Every module of `tools/` can be imported: most are commands for hours, which no test runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_every_module_of_the_tools_can_be_imported():
    files = [path for path in sorted((ROOT / "tools").rglob("*.py")) if path.name != "__main__.py"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    assert len(names) > 40
    # As these commands are started: from the root, with the tests' helpers for those that need them.
    path = f"{ROOT}:{ROOT / 'tests' / 'helpers'}"
    command = [sys.executable, "-c", IMPORT_ALL, *names]
    made = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
