"""Which versions of this project and its requirements are there: what runs and figures are made with."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

DISTRIBUTION = "mdpd-plugins"
# Extras whose packages no result depends on.
ASIDE = re.compile(r"extra == [\"'](test|demo)[\"']")


def installed_versions() -> dict[str, str]:
    """Distribution -> version: this project, what it requires and what its extras bring, as far as it is installed."""
    texts = [t for t in importlib.metadata.requires(DISTRIBUTION) or [] if not ASIDE.search(t)]
    return versions_of(sorted({DISTRIBUTION, *(re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in texts)}))


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Distribution -> version, of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def revisions() -> dict[str, str]:
    """Git commits, with "+changed" where files differ from them: "mdpd_plugins", of this project's own checkout, and
    "here", of the one that the current folder is in. What is in no checkout is left out."""
    own = Path(__file__).resolve().parent
    found = {"mdpd_plugins": _revision(own, "__init__.py"), "here": _revision(Path.cwd())}
    return {name: revision for name, revision in found.items() if revision}


def _revision(folder: Path, file: str | None = None) -> str | None:
    """The commit of the checkout that `folder` is in; None if there is none, or it does not hold `file`."""
    if file is not None and _git(folder, "ls-files", "--error-unmatch", file) is None:
        return None  # installed in an environment that happens to lie in somebody's checkout
    if not (commit := _git(folder, "rev-parse", "HEAD")):
        return None
    return f"{commit}+changed" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


__all__ = ["DISTRIBUTION", "installed_versions", "revisions", "versions_of"]
