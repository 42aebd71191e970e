"""Errors of the whole project. Every message says what was asked, what exists and what to do next.

They live beside the registry because it is the one part that everything else may import.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MDPDError(Exception):
    """Base class: an error whose message is meant for the person at the keyboard."""


class UnknownBackboneError(MDPDError, LookupError):
    """A backbone name that no plugin registered."""


class DuplicateBackboneError(MDPDError, ValueError):
    """Two plugins registered one name."""


class BackboneSpecError(MDPDError, ValueError):
    """A BackboneSpec with a field that cannot be right."""


class PluginError(MDPDError):
    """A plugin that failed, or that refers to a module or attribute that does not exist.

    While plugins are loaded it is raised only where MDPD_STRICT_PLUGINS=1 makes failures fatal.
    """


class MissingDependencyError(MDPDError, ImportError):
    """A library that the chosen backbone or data set needs is not installed."""


class ConfigError(MDPDError, ValueError):
    """A configuration value that cannot work."""


class UsageError(MDPDError, RuntimeError):
    """A call that came at the wrong time: after the end, or too often."""


class OutOfMemory(MDPDError, MemoryError):
    """Memory ran out, and the message says what to lower."""


class DataError(MDPDError, ValueError):
    """Data that cannot be read, or does not fit the task."""


class DataWarning(UserWarning):
    """Data that is used, although something about it should be known: parts of it are left out, say."""


class CheckpointError(MDPDError, ValueError):
    """A checkpoint that is missing, unsafe, or made for another architecture."""


class CapabilityError(MDPDError, NotImplementedError):
    """The backbone cannot do what was asked (for example: it has no global attention)."""


def closest(name: str, known: Iterable[str], count: int = 3) -> str:
    """A phrase that names the entries of `known` nearest to `name`, or lists a few of them.

    Upper and lower case count as the same.

    >>> closest("vit_bse", ["vit_base", "bert"])
    "did you mean 'vit_base'?"
    """
    known = list(known)
    folded: dict[str, str] = {}
    for entry in known:
        folded.setdefault(entry.casefold(), entry)
    near = [folded[n] for n in difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.5)]
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    shown = ", ".join(sorted(known)[:8])
    return f"known: {shown}{', ...' if len(known) > 8 else ''}" if known else "none is known"
