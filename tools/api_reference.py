"""python -m tools.api_reference: docs/api.md from docstrings, and docs/configuration.md from the sections' fields."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from mdpd_plugins.training.explain import sections

DOCS = Path(__file__).parent.parent / "docs"
MODULES = (
    "mdpd_plugins",
    "mdpd_plugins.adapters",
    "mdpd_plugins.registry",
    "mdpd_plugins.testing",
    "mdpd_plugins.integrations.transformers",
)
GENERATED = "<!-- Written by python -m tools.api_reference; do not edit. -->"
_HEADINGS = ("Args:", "Returns:", "Raises:", "Attributes:")
# Names that hold a value, which has no docstring of its own.
_VALUES = {
    "METHODS": "Name of a method -> the settings in which it differs from the defaults; what each is: "
    "[method.md](method.md#switches).",
    "RANDOM": "What the `origin` of randomly initialised weights begins with.",
    "ENTRY_POINT_GROUP": "The group of entry points that names plugins.",
    "PROJECT_NAME": "The name under which pluggy knows the hooks.",
    "MODALITIES": "What a backbone may read.",
    "hookimpl": "Decorator of a plugin's hooks: [plugin-authors.md](plugin-authors.md).",
    "hookspec": "pluggy's marker of the hook specifications.",
    "CHECKS": "All checks of the conformance kit, in the order in which they run.",
    "PASS": "A check passed.",
    "FAIL": "A check found a violation of the contract.",
    "NOT_APPLICABLE": "A check does not concern this backbone.",
    "__version__": "The installed version.",
}


class _Bare(str):
    """An annotation that `inspect` writes without quotes."""

    def __repr__(self) -> str:
        return str(self)


def api_page() -> str:
    """The reference of all public names, each where it is met first."""
    lines = [GENERATED, "", "# API reference", ""]
    lines += ["How the parts work together: [README](../README.md), [adapters](adapters.md), "]
    lines[-1] += "[training loops](training-loops.md), [plugins](plugin-authors.md)."
    met: dict[int, str] = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        lines += ["", f"## {module_name}", "", _prose(module.__doc__ or "")]
        for name in sorted(module.__all__, key=lambda n: (n.startswith("_"), n.casefold())):
            thing = getattr(module, name)
            lines += ["", f"### {name}", ""]
            if name in _VALUES:
                lines += [_VALUES[name], *_value(name, thing)]
            elif id(thing) in met:
                lines += [f"The same as `{met[id(thing)]}`."]
            else:
                met[id(thing)] = f"{module_name}.{name}"
                lines += _described(name, thing)
    return "\n".join(lines).rstrip() + "\n"


def _value(name: str, value: Any) -> list[str]:
    if isinstance(value, dict) or name == "CHECKS":
        return ["", ", ".join(f"`{getattr(key, 'name', key)}`" for key in value)]
    return ["", f"`{value!r}`"] if isinstance(value, (str, tuple)) and name != "__version__" else []


def _described(name: str, thing: Any) -> list[str]:
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return [_prose(_own_doc(thing))]
    if dataclasses.is_dataclass(thing) and any("about" in f.metadata for f in dataclasses.fields(thing)):
        # Written out in the configuration's page, with ranges and meaning.
        section = {"Settings": "distill", "Rates": "optim"}[name]
        return [_prose(_own_doc(thing)), "", f"Its fields: [configuration.md](configuration.md#{section})."]
    lines = ["```python", _signature(name, thing), "```", "", _prose(_own_doc(thing))]
    if inspect.isclass(thing):
        for member, what in _members(thing):
            kind = inspect.getattr_static(thing, member)
            value = isinstance(kind, property) or not isinstance(what, (Callable, classmethod))  # type: ignore[arg-type]
            title = f"`{name}.{member}`" if value else f"`{_signature(member, what)}`"
            lines += ["", f"#### {title}", "", _prose(inspect.getdoc(what) or "")]
    return lines


def _own_doc(thing: Any) -> str:
    """The docstring that was written for it, not its base's and not what `dataclass` makes up."""
    doc = thing.__doc__ or ""
    return "" if doc.startswith(f"{getattr(thing, '__name__', '')}(") else inspect.cleandoc(doc)


def _members(thing: type) -> Iterable[tuple[str, Any]]:
    """Public methods and properties, in their order: of the class, then of bases that have no entry of their own."""
    met = set()
    for owner in thing.__mro__:
        if owner is not thing and (not owner.__module__.startswith("mdpd_plugins.") or owner in _public()):
            continue
        for name, value in vars(owner).items():
            written = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            described = isinstance(written, property) or hasattr(written, "func") or inspect.isfunction(written)
            if described and not name.startswith("_") and name not in met and inspect.getdoc(written):
                met.add(name)
                yield name, written


@cache
def _public() -> frozenset[Any]:
    """All classes that the page has an entry for."""
    found = (getattr(module, name) for module in map(importlib.import_module, MODULES) for name in module.__all__)
    return frozenset(thing for thing in found if inspect.isclass(thing))


def _signature(name: str, thing: Any) -> str:
    signature = inspect.signature(thing)
    given = [
        p.replace(annotation=_Bare(p.annotation) if isinstance(p.annotation, str) else p.annotation)
        for p in signature.parameters.values()
        if p.name not in ("self", "cls")
    ]
    result = signature.return_annotation
    result = _Bare(result) if isinstance(result, str) and not inspect.isclass(thing) else inspect.Signature.empty
    text = f"{name}{signature.replace(parameters=given, return_annotation=result)}"
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", text)


def _prose(doc: str) -> str:
    """A docstring as Markdown: sections of named things become lists."""
    lines, section = [], ""
    for line in inspect.cleandoc(doc).splitlines():
        if line in _HEADINGS:
            section = line
            lines += [f"**{line[:-1]}**", ""]
        elif not section or (line and not line.startswith("    ")):
            section = ""
            lines.append(line)
        elif section == "Returns:" or not line:
            lines.append(line.strip())
        elif line.startswith("     "):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.strip())
            lines[-1] = f"- {lines[-1]}"
    return _escaped("\n".join(_items(line) if line.startswith("- ") else line for line in lines).strip())


def _items(line: str) -> str:
    """`- one: ... two: ...`, as docstrings save lines, as an item each."""
    found = []
    for item in re.split(r"(?<=\.) (?=[a-z_]+: )", line[2:]):
        names = re.match(r"([\w*][\w*, /]*): ", item)
        found.append(f"- `{names[1]}`: {item[names.end() :]}" if names else f"- {item}")
    return "\n".join(found)


def _escaped(text: str) -> str:
    """`<` outside of code would begin a tag."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if i % 2 else part.replace("<", "\\<") for i, part in enumerate(parts))


def configuration_page() -> str:
    """A table for each section of a configuration."""
    lines = [GENERATED, "", "# Configuration", ""]
    lines += [
        "A configuration is a Python file with a dictionary for each section: `train = dict(max_epochs=3)`. Every key "
        "can be given on the command line: `--cfg-options train.max_epochs=5`. A key that does not exist, or a value "
        "out of its range, is an error before anything is built. `mdpd config --explain train.max_epochs` prints one.",
    ]
    for section in sections().values():
        lines += ["", f"## {section.name or 'Keys outside of sections'}", "", _escaped(section.about), ""]
        lines += ["| key | type | default | allowed | meaning |", "| --- | --- | --- | --- | --- |"]
        for key in section.keys:
            cells = (f"`{key.name}`", key.kind, f"`{key.default}`", key.allowed, _escaped(key.about))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {"api.md": api_page, "configuration.md": configuration_page}


def main() -> int:
    """Write both pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
