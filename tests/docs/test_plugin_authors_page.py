"""The page for plugin authors shows what is there: code of the example plugin, every hook, every field."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from mdpd_plugins.registry import BackboneSpec, SourceSpec
from mdpd_plugins.registry.hooks import HOOK_NAMES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugin-authors.md").read_text(encoding="utf-8")
FROM_THE_EXAMPLE, REST = PAGE.split("## When the general adapter is not enough")
EXAMPLE = ROOT / "examples" / "mdpd-example-plugin"
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in sorted(EXAMPLE.rglob("*.py")))


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", FROM_THE_EXAMPLE, re.DOTALL))
def test_code_is_the_examples(code):
    assert code in SOURCES


def test_the_entry_point_is_the_examples():
    (entry,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert entry in (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("hook", HOOK_NAMES)
def test_every_hook_has_a_section_and_an_example(hook):
    _, _, section = FROM_THE_EXAMPLE.partition(f"## `{hook}(")
    section = section.partition("\n## ")[0]
    assert section
    assert f"def {hook}(" in (FROM_THE_EXAMPLE if hook == "register_backbones" else section)


@pytest.mark.parametrize("spec", [BackboneSpec, SourceSpec], ids=lambda spec: spec.__name__)
def test_every_field_is_explained(spec):
    missing = [f.name for f in fields(spec) if not re.search(rf"\b{f.name}\b", FROM_THE_EXAMPLE)]
    assert missing == []


def test_further_code_compiles():
    for code in re.findall(r"```python\n(.*?)```", REST, re.DOTALL):
        compile(code, "plugin-authors.md", "exec")
