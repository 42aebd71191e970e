"""docs/data.md: its examples are configurations that load, its tables say what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mdpd_plugins.data import packaged_names
from mdpd_plugins.data.load import _COMMON, check_keys
from mdpd_plugins.data.sources.glue_tasks import TASKS
from mdpd_plugins.data.sources.vtab import CLASSES
from mdpd_plugins.registry import load_catalogue
from mdpd_plugins.training.config import DEFAULTS

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def examples() -> list[dict[str, Any]]:
    found = []
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        for statement in re.split(r"^(?=data = )", block, flags=re.MULTILINE)[1:]:
            scope: dict[str, Any] = {}
            exec(statement, scope)  # a configuration is Python
            found.append(scope["data"])
    return found


@pytest.mark.parametrize("data", examples(), ids=lambda d: f"{d['source']['type']}-{len(d['source'])}")
def test_examples_have_the_keys_that_their_source_takes(data: dict[str, Any]) -> None:
    assert set(data) <= set(DEFAULTS["data"])
    options = dict(data["source"])
    opener = load_catalogue().source(options.pop("type")).load_open()
    check_keys(opener, {k: v for k, v in options.items() if k not in _COMMON}, "it")


def test_every_type_has_an_example() -> None:
    named = {part["type"] for data in examples() for part in (data["source"], data.get("unlabelled")) if part}
    assert named - {"rest"} == set(load_catalogue().sources)


def test_tasks_and_packaged_sets_are_those_of_the_code() -> None:
    packaged = PAGE[PAGE.index("## Packaged data") :]
    assert set(re.findall(r"^\| `([\w-]+)` \|", packaged, re.MULTILINE)) == set(packaged_names())
    glue = PAGE[PAGE.index("## GLUE") : PAGE.index("## VTAB-1k")]
    assert set(re.findall(r"`(\w+)`", glue[: glue.index("Without")])) == set(TASKS)
    vtab = PAGE[PAGE.index("| group | tasks") : PAGE.index("## Packaged data")]
    assert {name: int(count) for name, count in re.findall(r"(\w+) \((\d+)\)", vtab)} == CLASSES
