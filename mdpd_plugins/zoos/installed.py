"""Looks at installed packages without importing them into this process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path


def package_folder(name: str) -> Path | None:
    """The folder of a top-level package, or None where it is not installed. Imports nothing."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def release(version_text: str) -> tuple[int, ...]:
    """The numbers of a version for comparisons: ``"5.9.0rc1+cpu"`` -> ``(5, 9, 0)``."""
    match = re.match(r"\d+(\.\d+)*", version_text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def comes_from(model: object, package: str) -> bool:
    """Whether a live object's class, or one that it is derived from, is defined in `package`."""
    return any(c.__module__.partition(".")[0] == package for c in type(model).__mro__)
