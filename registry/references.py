"""Lazy references: ``"package.module:attribute"`` strings, imported when they are used."""

from __future__ import annotations

import importlib
import re
from typing import Any

from .errors import MissingDependencyError, PluginError, closest

REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def resolve(reference: str, *, purpose: str = "") -> Any:
    """Import what ``"package.module:attribute"`` names and return it.

    purpose: what it is for, put into the error messages.
    Raises PluginError when the text is malformed or the module or attribute does not exist, and
    MissingDependencyError when the module exists but imports a package that is not installed.
    """
    of = f" for {purpose}" if purpose else ""
    if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
        raise PluginError(f"{reference!r}{of} is not of the form 'package.module:attribute'")
    module_name, _, attribute = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and (module_name == missing or module_name.startswith(missing + ".")):
            raise PluginError(
                f"{reference!r}{of} cannot be imported: there is no module {missing!r}; is the package "
                "that provides it installed, and is the name right?"
            ) from error
        raise MissingDependencyError(
            f"{reference!r}{of} needs the package {missing or str(error)!r}, which is not installed; "
            "`mdpd doctor` shows what is missing and how to get it"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            raise PluginError(f"{reference!r}{of}: {module_name!r} has no {part!r}; {closest(part, names)}")
        found = getattr(found, part)
    return found
