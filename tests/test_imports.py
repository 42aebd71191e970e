"""The layers of the project, read off its sources: who may import whom, and that none outside the zoos names one."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

# What each part may import besides itself, in one direction. Zoos are reached through their entry points; from their
# folder comes plain data only: what was verified.
_ADAPTERS = {"registry", "files", "freed_memory", "cache", "console", "shortages"}
_ENGINE = _ADAPTERS | {"adapters", "checked"}
_TASKS = _ENGINE | {"engine"}
_EXPORTS = _TASKS | {"tasks", "data"}
_TRAINING = _EXPORTS | {"exports", "versions"}
_TOP = _TRAINING | {"training", "planning"}
ALLOWED = {
    "registry": set(),
    "files": {"registry"},
    "freed_memory": set(),
    "cache": {"registry", "files"},
    "console": set(),
    "versions": set(),
    "shortages": set(),
    "checked": {"registry"},
    "data_types": {"registry"},
    "adapters": _ADAPTERS,
    "engine": _ENGINE,
    "tasks": _TASKS,
    "data": _ENGINE,
    "exports": _EXPORTS,
    "zoos": _ENGINE | {"data", "exports"},
    "api": _TRAINING,
    "integrations": _TRAINING | {"api"},
    "training": _TRAINING,
    "planning": _TRAINING | {"training"},
    "benchmark": _TOP,
    "reporting": _TOP,
    "testing": _TASKS | {"tasks", "versions"},
    "cli": _TOP | {"benchmark", "testing", "reporting", "zoos"},
    "tools": _TOP | {"benchmark", "testing", "cli", "integrations", "zoos"},
}
# Those that register backbones; torchvision is a library that this project requires anyway.
PLUGINS = (ROOT / "mdpd_plugins" / "zoos").glob("*/plugin.py")
ZOOS = sorted(p.parent.name for p in PLUGINS if "def register_backbones" in p.read_text(encoding="utf-8"))


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


# The tools themselves, their tests, and those of the pages that they write.
OF_TOOLS = {"tools", "docs"}
CODE = sources("registry", "mdpd_plugins", "tools")
EVERYTHING = [*CODE, *sources("tests", "examples", "zoo_configs")]


def part(path: Path) -> str:
    """The part of the project that a file belongs to; "" for mdpd_plugins/__init__.py."""
    inside = path.relative_to(ROOT).parts
    if inside[0] != "mdpd_plugins":
        return inside[0]
    return "" if inside[1:] == ("__init__.py",) else inside[1].removesuffix(".py")


def imported(path: Path, *, at_load: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports; at_load: leaving out what functions import."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = ["mdpd_plugins", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    if package[1:2] == ["mdpd_plugins"]:
        package = package[1:]
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif not (at_load and _runs_later(node)):
            pending.extend(ast.iter_child_nodes(node))


def _runs_later(node: ast.AST) -> bool:
    """A function's body, or what only a type checker reads."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return True
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_the_parts_import_each_other_in_one_direction_only():
    wrong = []
    for path in CODE:
        own = part(path)
        if not own:
            continue  # mdpd_plugins/__init__.py hands out the public names of all of them, lazily
        allowed = ALLOWED.get(own, set()) | {own}
        for line, name in imported(path):
            top, _, rest = name.partition(".")
            target = rest.partition(".")[0] if top == "mdpd_plugins" else top
            if top == "mdpd_plugins" and target in ALLOWED and target not in allowed:
                wrong.append(f"{where(path, line)}: {own or 'mdpd_plugins'} must not import {name}")
    assert not wrong, "\n".join(wrong)


def test_every_part_is_known_here():
    assert {part(path) for path in CODE} - {""} <= set(ALLOWED)


def test_nothing_imports_tools_or_configs_or_the_registry_by_its_folder_name():
    wrong = [
        f"{where(path, line)}: {name}"
        for path in EVERYTHING
        for line, name in imported(path)
        if name.partition(".")[0]
        in {"tools", "zoo_configs", "registry"} - ({"tools"} if set(path.relative_to(ROOT).parts) & OF_TOOLS else set())
        or name.startswith(("mdpd_plugins.tools", "mdpd_plugins.zoo_configs"))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_registry_uses_pluggy_and_the_standard_library_only():
    light = {"mdpd_plugins", "pluggy", *sys.stdlib_module_names}
    found = [(path, line, name) for path in sources("registry") for line, name in imported(path)]
    wrong = [f"{where(path, line)}: {name}" for path, line, name in found if name.partition(".")[0] not in light]
    assert not wrong, "\n".join(wrong)


def test_what_listing_backbones_loads_is_light():
    """Followed from the command and the built-in plugins through all that is imported when they load."""
    light = {"mdpd_plugins", "pluggy", "packaging", *sys.stdlib_module_names}
    plugins = sorted((ROOT / "mdpd_plugins" / "zoos").glob("*/plugin.py"))
    pending = [ROOT / "mdpd_plugins" / "cli" / "main.py", ROOT / "mdpd_plugins" / "data_types.py", *plugins]
    seen, wrong = set(pending), []
    while pending:
        path = pending.pop()
        for line, name in imported(path, at_load=True):
            if name.partition(".")[0] not in light:
                wrong.append(f"{where(path, line)}: {name}")
            # Importing a module runs every package above it.
            steps = name.split(".")
            for end in range(1, len(steps) + 1):
                for file in _files(steps[:end]):
                    if file not in seen:
                        seen.add(file)
                        pending.append(file)
    assert not wrong, "\n".join(wrong)
    assert ROOT / "registry" / "loader.py" in seen and ROOT / "mdpd_plugins" / "cli" / "verify.py" in seen


def _files(module: list[str]) -> list[Path]:
    """The file that a dotted name of ours is, if it is one."""
    inside = ["registry", *module[2:]] if module[:2] == ["mdpd_plugins", "registry"] else module
    path = ROOT.joinpath(*inside)
    return [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]


def test_no_file_outside_the_zoos_names_one():
    """Neither in an import nor in a value that code compares or looks up; messages and documentation may."""
    assert ZOOS == ["huggingface", "mmpretrain", "open_clip"]
    wrong = []
    for path in CODE:
        if part(path) in ("zoos", "tools"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        spoken = [node for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.Raise))]
        messages = {id(part) for node in spoken for part in ast.walk(node)}
        for node in ast.walk(tree):
            text = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and id(node) not in documentation | messages:
                words = set(re.split(r"[^\w]", text))
                if words & set(ZOOS) and " " not in text:
                    wrong.append(f"{where(path, node.lineno)}: {text!r}")
        wrong += [f"{where(path, line)}: {name}" for line, name in imported(path) if set(name.split(".")) & set(ZOOS)]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_a_drawer_of_odds_and_ends():
    assert not [path for path in EVERYTHING if path.name in {"utils.py", "util.py", "helpers.py", "misc.py"}]
