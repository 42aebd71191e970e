"""The pages of code run from top to bottom, and print what they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.page_output import run_page

DOCS = Path(__file__).parents[2] / "docs"
LIBRARIES = ("timm", "torchvision", "transformers", "open_clip", "mmpretrain")


@pytest.mark.parametrize("page", ["adapters.md", "training-loops.md"])
def test_a_page_prints_what_it_shows(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert run_page(text, page) == text


def test_adapters_are_shown_on_five_libraries_and_a_model_of_ones_own():
    text = (DOCS / "adapters.md").read_text(encoding="utf-8")
    assert all(f"import {library}\n" in text for library in LIBRARIES) and "class Own(torch.nn.Module)" in text
    for shown in ("seen.hidden", "seen.attention", "norm_parameters()", "named_blocks"):
        assert text.count(shown) >= len(LIBRARIES) + 1, shown


def test_output_is_put_below_a_block_that_asks_for_it_and_wrong_output_is_found():
    page = "# Title\n```python\nprint(1)\nx = 2\n```\n\n```python\nprint(x)\n```\n\n```text\n3\n```\nEnd.\n"
    assert run_page(page, "page.md") == page.replace("3\n", "2\n")
    with pytest.raises(ZeroDivisionError):
        run_page("```python\n1 / 0\n```\n", "page.md")
