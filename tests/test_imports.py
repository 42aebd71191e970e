"""The layers of the project, read off its import statements: who may import whom, and how long a file is."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 400

# What each part may import besides itself. The zoos are reached through their entry points; from their folder come only
# tables of plain data: transformers' models, and what was verified.
_ENGINE = {"registry", "adapters"}
_TASKS = _ENGINE | {"engine"}
_TRAINING = _TASKS | {"tasks", "data"}
_DEPLOYMENT = _TRAINING | {"training"}
_TOP = _DEPLOYMENT | {"deployment"}
ALLOWED = {
    "registry": set(),
    "zoos": {"registry"},
    "adapters": {"registry", "zoos"},  # for the plain table of transformers models, kept once
    "engine": _ENGINE,
    "tasks": _TASKS,
    "data": _TASKS,
    "training": _TRAINING,
    "deployment": _DEPLOYMENT | {"zoos"},
    "reduction": _ENGINE | {"zoos"},
    "testing": _TOP,
    "reporting": _TOP,
    "cli": _TOP | {"testing", "reporting", "zoos"},
    "tools": _TOP | {"testing", "cli", "zoos"},
}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


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
        if name.partition(".")[0] in {"tools", "zoo_configs", "registry"}
        or name.startswith(("mdpd_plugins.tools", "mdpd_plugins.zoo_configs"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("folder", "third_party", "at_load"),
    [
        ("registry", {"pluggy"}, False),
        # What `mdpd list-backbones` loads. Functions may import more when they run.
        ("mdpd_plugins/zoos", set(), True),
        ("mdpd_plugins/cli", {"packaging"}, True),
    ],
)
def test_what_listing_backbones_loads_is_light(folder, third_party, at_load):
    light = {"mdpd_plugins", *third_party, *sys.stdlib_module_names}
    parts = {"registry", "zoos", "cli"}
    wrong = []
    for path in sources(folder):
        for line, name in imported(path, at_load=at_load):
            top, _, rest = name.partition(".")
            if top not in light or (top == "mdpd_plugins" and rest.partition(".")[0] not in parts):
                wrong.append(f"{where(path, line)}: {name}")
    assert not wrong, "\n".join(wrong)


def test_no_file_is_long_and_none_is_a_drawer_of_odds_and_ends():
    long = {str(p.relative_to(ROOT)): n for p in EVERYTHING if (n := len(p.read_text().splitlines())) > MAX_LINES}
    assert not long, f"files above {MAX_LINES} lines: {long}"
    assert not [path for path in EVERYTHING if path.name in {"utils.py", "util.py", "helpers.py"}]
