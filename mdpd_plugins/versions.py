"""Which versions of this project's own requirements are installed: what figures and verifications were made with."""

from __future__ import annotations

import importlib.metadata
import re

DISTRIBUTION = "mdpd-plugins"
# Extras whose packages no result depends on.
ASIDE = re.compile(r"extra == [\"'](test|demo)[\"']")


def installed_versions() -> dict[str, str]:
    """Distribution -> version: this project, what it requires and what its extras bring, as far as it is installed."""
    texts = [t for t in importlib.metadata.requires(DISTRIBUTION) or [] if not ASIDE.search(t)]
    names = [DISTRIBUTION, *(re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in texts)]
    found = {}
    for name in sorted(set(names)):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


__all__ = ["DISTRIBUTION", "installed_versions"]
