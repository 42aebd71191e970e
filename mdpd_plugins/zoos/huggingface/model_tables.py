"""The source of the installed transformers: its tables of models, and what is read off it, kept in a cache."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mdpd_plugins.cache import cached
from mdpd_plugins.zoos import installed

TABLE = Path("models", "auto", "modeling_auto.py")


def read_off(name: str, form: int, read: Callable[[Path], dict], valid: Callable[[Any], bool]) -> dict[str, Any]:
    """What `read` makes of transformers' folder; from the cache where this version in this place was read before.

    Empty without transformers. Nothing of it is imported.

    Args:
        name: of the cache's file. form: number of the form of what `read` makes, so that an older one is not used.
    """
    folder = installed.package_folder("transformers")
    if folder is None or not (folder / TABLE).is_file():
        return {}
    key = {
        "format": form,
        "version": installed.version("transformers"),
        "table": str(folder / TABLE),
        "changed": (folder / TABLE).stat().st_mtime_ns,
    }
    found: dict[str, Any] = cached(name, key, lambda: read(folder), valid)
    return found


def read_tables(file: Path) -> dict[str, dict[str, str]]:
    """Name -> its rows (model type -> class), of every table in `modeling_auto.py`; the first of several classes."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        if isinstance(node.value, ast.Call) and node.value.args:
            for row in getattr(node.value.args[0], "elts", []):
                values = [n.value for n in ast.walk(row) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                if len(values) > 1:
                    found.setdefault(node.targets[0].id, {}).setdefault(values[0], values[1])
    return found


__all__ = ["TABLE", "read_off", "read_tables"]
