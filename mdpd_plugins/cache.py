"""A cache of small JSON values in the user's cache folder. It may fail at any time and costs only speed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any
from zlib import crc32

from mdpd_plugins.files import write_text
from mdpd_plugins.registry.attempts import cache_folder


def cached(name: str, key: dict[str, Any], make: Callable[[], Any], valid: Callable[[Any], bool]) -> Any:
    """The value kept under `name` if it was made for the same `key` and is `valid`, else a new one.

    key, and what `make` returns, must be JSON values. An unreadable, damaged or unwritable cache is passed
    over in silence; the file is replaced in one step, so that no reader ever sees half of it.
    """
    with contextlib.suppress(KeyError, TypeError):
        stored = recall(name)
        if stored["key"] == key and stored["sum"] == _sum(key, stored["value"]) and valid(stored["value"]):
            return stored["value"]
    value = make()
    remember(name, {"key": key, "value": value, "sum": _sum(key, value)})
    return value


def _sum(key: dict[str, Any], value: Any) -> int:
    return crc32(json.dumps([key, value]).encode())


def recall(name: str) -> Any:
    """The JSON value that `remember` keeps under `name`, or None. Files may be damaged: look at it before use."""
    try:
        return json.loads((cache_folder() / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def add(name: str, key: str, value: Any) -> None:
    """Add an entry to the JSON object that is kept under `name`, or fail in silence. Several processes may add."""
    from filelock import FileLock  # here: listing backbones loads this module, and adds nothing

    with contextlib.suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_folder() / f"{name}.lock"):
            known = recall(name)
            remember(name, {**(known if isinstance(known, dict) else {}), key: value})


def remember(name: str, value: Any) -> None:
    """Keep a JSON value under `name`, in one step, or fail in silence."""
    with contextlib.suppress(OSError):
        path = cache_folder() / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(value, separators=(",", ":")))
