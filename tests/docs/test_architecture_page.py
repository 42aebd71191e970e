"""The architecture page shows the layers that the sources keep, and names files and functions that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mdpd_plugins.cli.main import COMMANDS
from tools.layers import allowed, diagram, direct

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])
# Where a page's paths start: the repository, the package, or the part that a page is about.
STARTS = (
    *(ROOT, ROOT / "mdpd_plugins", ROOT / "mdpd_plugins" / "engine", ROOT / "examples" / "mdpd-example-plugin"),
    *(ROOT / "zoo_configs").glob("*"),
)
# Files of users, of a run or of an export.
OTHERS = {"config.py", "script.py", "model.py", "build.py", "adapter.py", "small.py", "exported.py", "run_clm.py"}
_REFERENCE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.py)(?::(\w+))?")


def test_the_diagram_is_that_of_the_layers():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert diagram() in page, "run python -m tools.layers"


def test_what_the_diagram_leaves_out_follows_from_what_it_shows():
    layers = allowed()
    reached = {who: {whom for one, whom in direct(layers) if one == who} for who in layers}
    for _ in layers:
        reached = {who: near | {far for n in near for far in reached[n]} for who, near in reached.items()}
    assert all(whom <= reached[who] for who, whom in layers.items())
    assert not any(who in whom for who, whom in reached.items()), "in one direction"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_functions_that_a_page_names_exist(page):
    wrong = []
    for file, function in _REFERENCE.findall(page.read_text(encoding="utf-8")):
        found = [start / file for start in STARTS if (start / file).is_file()]
        if not found:
            wrong += [file] if file not in OTHERS else []
        elif function and not re.search(
            rf"^(class|def) {function}\b|^{function}\b", found[0].read_text(), re.MULTILINE
        ):
            wrong.append(f"{file}:{function}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)#:]*)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8")):
        if target and not (page.parent / target).exists():
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_headings_that_a_page_links_to_exist(page):
    wrong = []
    for target, heading in re.findall(r"\]\(([^)#:]*)#([\w-]*)\)", page.read_text(encoding="utf-8")):
        other = page.parent / target if target else page
        if other.suffix == ".md" and other.is_file() and heading not in anchors(other):
            wrong.append(f"{target}#{heading}")
    assert wrong == []


def anchors(page: Path) -> set[str]:
    """Names under which GitHub finds the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = set()
    for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().lower().replace(" ", "-"))
    return found


def test_every_command_has_a_file_of_its_name():
    for name, module in COMMANDS.items():
        expected = {"eval": "evaluate"}.get(name, name.replace("-", "_"))
        assert module.__name__ == f"mdpd_plugins.cli.{expected}"
