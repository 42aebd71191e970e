"""The reference pages are what the sources say now, and `mdpd config` says the same."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from mdpd_plugins.cli.main import main
from mdpd_plugins.engine import METHODS, Settings
from mdpd_plugins.training import DEFAULTS
from mdpd_plugins.training.explain import explain, sections
from mdpd_plugins.training.sections import RunSections
from tools.api_reference import MODULES, PAGES

DOCS = Path(__file__).parents[2] / "docs"
KEYS = {key.name: key for section in sections().values() for key in section.keys}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_current(page):
    assert PAGES[page]() == (DOCS / page).read_text(encoding="utf-8"), "run python -m tools.api_reference"


def test_every_public_name_is_in_the_reference_with_words_about_it():
    text = PAGES["api.md"]()
    for module in MODULES:
        _, _, own = text.partition(f"\n## {module}\n")
        own = own.partition("\n## ")[0]
        for name in importlib.import_module(module).__all__:
            said = own.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
            code = said.partition("```python")[2].partition("```")[0]
            assert len(said.replace(code, "").split()) >= 2, f"{module}.{name} has no docstring"


def test_what_a_class_has_from_bases_without_an_entry_is_its_own():
    """Users call them on an adapter, wherever they are written."""
    adapter = PAGES["api.md"]().partition("\n### Adapter\n")[2].partition("\n### ")[0]
    for call in ("transform", "prepare", "as_inputs", "example_inputs", "forward", "export"):
        assert adapter.count(f"\n#### `{call}(") == 1, call


def test_every_key_of_a_configuration_is_explained():
    known = {**{name: None for name in DEFAULTS}, **{f.name: None for f in dataclasses.fields(RunSections)}}
    expected = {f"distill.{f.name}" for f in dataclasses.fields(Settings)}
    for name in known:
        default = DEFAULTS[name]
        inside = isinstance(default, dict) and name != "distill"
        expected |= {f"{name}.{key}" for key in default} if inside else {name} - {"distill"}
    assert set(KEYS) == expected
    assert [name for name, key in KEYS.items() if not key.about] == []


def test_a_key_has_its_type_default_range_and_meaning():
    key = KEYS["train.max_epochs"]
    assert (key.kind, key.default, key.allowed) == ("float", "3", "above 0") and "epochs" in key.about
    assert KEYS["train.max_steps"].kind == "int or None"
    assert KEYS["distill.warmup"].allowed == "at least 0, at most 1"
    assert KEYS["data.eval_split"].allowed == "val, test"
    assert KEYS["distill.method"].allowed.split(", ") == list(METHODS)


def test_the_command_explains_a_key_a_section_and_everything(capsys):
    assert main(["config", "--explain", "train.max_epochs"]) == 0
    assert capsys.readouterr().out == (
        "train.max_epochs = 3  (float; above 0)\n    epochs; half an epoch may well be meant\n"
    )
    assert main(["config", "--explain", "parallel"]) == 0
    assert "parallel.shard = False  (bool)" in capsys.readouterr().out
    assert main(["config", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {key["name"] for section in found for key in section["keys"]} == set(KEYS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("train.max_epoch", "did you mean 'train.max_epochs'"),
        ("batch_size", "did you mean 'data.batch_size' or 'coach.batch_size'?"),
        ("pretrained", "did you mean 'backbone.pretrained' or 'text_backbone.pretrained'?"),
        ("distil", "did you mean 'distill'"),
        ("", "there is no config key or section ''"),
    ],
)
def test_a_wrong_key_gets_the_nearest_ones(capsys, wrong, said):
    assert main(["config", "--explain", wrong]) == 2
    assert said in capsys.readouterr().err


def test_a_section_is_explained_with_all_its_keys():
    (section,) = explain("optim")
    assert {key.name for key in section.keys} == {name for name in KEYS if name.startswith("optim.")}
