"""Small MMPretrain classifiers: fewer blocks and channels in the config's backbone, a smaller image."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from mdpd_plugins.zoos.mmpretrain.entries import read_entry
from mdpd_plugins.zoos.small_forms import cut, first_working

SIZES = (64, 224, None)
FORMS = ((2, 4), (2, 2), (2, 1), (None, 4), (None, 1))


def small(name: str) -> dict[str, dict[str, Any]]:
    """Options of `build` for `mmpretrain/<name>`."""
    return {"": first_working(name, _forms(read_entry(name.partition("/")[2]).config.model.backbone))}


def _forms(backbone) -> Iterator[dict[str, Any]]:
    from mmpretrain.registry import MODELS

    kind = MODELS.get(backbone["type"])
    fields = {**_defaults(kind), **backbone}
    table = _table(kind)
    if isinstance(fields.get("arch"), str) and fields["arch"] not in table:
        fields["arch"] = fields["arch"].lower()  # as most classes read it
    key = next((k for k in ("arch", "depth") if isinstance(fields.get(k), (str, int)) and fields[k] in table), None)
    named = {key: _smallest(table, fields[key])} if key else {}
    arch = table.get(fields["arch"]) if key == "arch" else fields.get("arch")
    plain = {k: v for k, v in fields.items() if k not in (key, "arch")}
    for depth, factor in FORMS:
        changes = cut(plain, depth, factor)
        if depth is None:
            yield from _sized({**changes, **named})
        if isinstance(arch, dict) and (smaller := cut(dict(arch), depth, factor)):
            changes["arch"] = {**arch, **smaller}  # not all classes take an architecture that is not a name
        if changes or depth is None:
            yield from _sized(changes)


def _smallest(table: dict[Any, Any], name: Any) -> Any:
    """The architecture in a table with the smallest numbers (blocks, widths, factors), of those made of its blocks."""

    def kinds(entry: Any) -> list[Any]:
        return [e for e in entry if isinstance(e, type)] if isinstance(entry, (tuple, list)) else []

    return min((n for n in table if kinds(table[n]) == kinds(table[name])), key=lambda n: _sum(table[n]))


def _sum(entry: Any) -> float:
    if isinstance(entry, (dict, list, tuple)):
        return sum(map(_sum, entry.values() if isinstance(entry, dict) else entry))
    return entry if isinstance(entry, (int, float)) else 0.0


def _sized(changes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for size in SIZES:
        options: dict[str, Any] = {"backbone": changes} if changes else {}
        if size is not None:
            options["image_size"] = size
        yield options


def _defaults(kind) -> dict[str, Any]:
    """Default arguments of a backbone class and its bases."""
    found: dict[str, Any] = {}
    for c in reversed(inspect.getmro(kind)) if kind else ():
        if "__init__" in vars(c) and c is not object:
            for key, p in inspect.signature(c.__init__).parameters.items():
                if isinstance(p.default, (int, list, tuple, str)) and not isinstance(p.default, bool):
                    found[key] = p.default
    return found


def _table(kind) -> dict[Any, Any]:
    """MMPretrain's classes keep their named architectures in one of these."""
    for attribute in ("arch_zoo", "arch_settings"):
        table = getattr(kind, attribute, None)
        if isinstance(table, dict):
            return table
    return {}


__all__ = ["small"]
