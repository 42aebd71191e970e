"""Pages and messages use the field's words, and the page on the method knows every method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mdpd_plugins.engine import METHODS

ROOT = Path(__file__).parents[2]
# What nobody says, and what to say.
AVOIDED = {
    "cannot be had": "is not available",
    "can be had": "is available",
    "be had from": "is available from",
    "trained behind": "final norm, pooler and head",
}
# Written by other tools, or measured long ago.
FOLDERS = ("docs", "mdpd_plugins", "registry", "examples", "zoo_configs")
FILES = [
    *ROOT.glob("*.md"),
    *(path for folder in FOLDERS for kind in ("*.md", "*.py") for path in sorted((ROOT / folder).rglob(kind))),
]


@pytest.mark.parametrize("phrase", AVOIDED)
def test_a_phrase_that_nobody_says_is_nowhere(phrase):
    spaced = re.compile(r"\s+(?:#\s+)?".join(map(re.escape, phrase.split())))
    found = [str(path.relative_to(ROOT)) for path in FILES if spaced.search(path.read_text(encoding="utf-8"))]
    assert found == [], f"say: {AVOIDED[phrase]}"


def test_the_table_of_switches_has_every_method():
    table = (ROOT / "docs" / "method.md").read_text(encoding="utf-8").partition("## Switches")[2].partition("\n## ")[0]
    rows = [cell for line in table.splitlines() if line.startswith("| ") for cell in [line.split("|")[1]]]
    named = {name for cell in rows for name in re.split(r"[ ,]+", cell.strip())}
    assert set(METHODS) <= named


def test_the_picture_of_the_method_is_whole_and_readable_on_any_ground():
    import xml.etree.ElementTree as ET

    picture = ROOT / "docs" / "method.svg"
    root = ET.parse(picture).getroot()
    said = " ".join("".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text"))
    for words in ("Backbone", "Side network", "imitate features", "logits", "Fade", "thrown away", "Plain checkpoint"):
        assert words in said
    assert "prefers-color-scheme: dark" in picture.read_text(encoding="utf-8")
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
