"""What every key of a configuration means: its type, default, range and purpose, read off the sections themselves."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from mdpd_plugins.checked import default_of
from mdpd_plugins.engine import METHODS, Settings
from mdpd_plugins.registry.errors import ConfigError, closest
from mdpd_plugins.training.sections import RunSections


@dataclass(frozen=True)
class Key:
    """One key: dotted name, type, default as Python writes it, allowed values ("" for all of the type), and purpose."""

    name: str
    kind: str
    default: str
    allowed: str
    about: str


@dataclass(frozen=True)
class Section:
    """A section: its name ("" for keys that stand outside), its purpose, and its keys."""

    name: str
    about: str
    keys: tuple[Key, ...]


def sections() -> dict[str, Section]:
    """Name -> section, in the order of a configuration; what stands outside of sections last."""
    hints = get_type_hints(RunSections)
    found: dict[str, Section] = {}
    for field in dataclasses.fields(RunSections):
        kind = Settings if field.name == "distill" else hints[field.name]
        if dataclasses.is_dataclass(kind):
            found[field.name] = _section(field.name, kind)  # type: ignore[arg-type]
    outside = [f for f in dataclasses.fields(RunSections) if f.name not in found]
    found[""] = Section(
        "", "They stand alone, outside of any dictionary.", tuple(_key(f.name, f, hints[f.name]) for f in outside)
    )
    return found


def explain(wanted: str) -> list[Section]:
    """The section of a name, or a section with the one key of a dotted name.

    Raises:
        ConfigError: there is neither; the nearest names are said.
    """
    found = sections()
    if wanted in found and wanted:
        return [found[wanted]]
    names = [key.name for section in found.values() for key in section.keys]
    for section in found.values():
        keys = tuple(key for key in section.keys if key.name == wanted)
        if keys:
            return [dataclasses.replace(section, keys=keys)]
    # People remember the last word of a key.
    same = [name for name in names if name.rpartition(".")[2] == wanted]
    hint = f"did you mean {' or '.join(map(repr, same))}?" if same else closest(wanted, [*filter(None, found), *names])
    raise ConfigError(f"there is no config key or section {wanted!r}: {hint}")


def _section(name: str, section: type) -> Section:
    hints = get_type_hints(section)
    about = " ".join((inspect.getdoc(section) or "").split())
    keys = tuple(_key(f"{name}.{f.name}", f, hints[f.name]) for f in dataclasses.fields(section))
    return Section(name, about, keys)


def _key(name: str, field: dataclasses.Field, kind: Any) -> Key:
    meta = field.metadata
    choices = tuple(METHODS) if name == "distill.method" else meta.get("choices", ())
    return Key(name, _kind(kind), repr(default_of(field)), _allowed(meta, choices), meta.get("about", ""))


def _kind(kind: Any) -> str:
    """An annotation in words."""
    if kind is Any:
        return "any"
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in get_args(kind))
    if kind is type(None):
        return "None"
    return (get_origin(kind) or kind).__name__


def _allowed(meta: Mapping[str, Any], choices: tuple[Any, ...]) -> str:
    if choices:
        return ", ".join(map(str, choices))
    low, above, high = (meta.get(limit) for limit in ("at_least", "above", "at_most"))
    parts = [f"above {above}"] if above is not None else []
    parts += [f"at least {low}"] if low is not None else []
    parts += [f"at most {high}"] if high is not None else []
    return ", ".join(parts)


__all__ = ["Key", "Section", "explain", "sections"]
