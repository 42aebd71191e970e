"""From measurements to the tables of docs/memory.md: the tools as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import write_config

from mdpd_plugins.benchmark.growth import slope

ROOT = Path(__file__).parents[2]


def run(tool, *arguments):
    command = [sys.executable, "-m", "tools.compare", tool, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_memory_grows_linearly_with_the_blocks_and_lands_on_the_page(tmp_path):
    config, out = write_config(tmp_path), tmp_path / "scaling.json"
    result = run(
        "growth", config, "--setting", "backbone.options.num_hidden_layers", "--values", 3, 6, 12,
        "--methods", "mdpd", "full", "--json", out,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(out.read_text())
    states = {(r["method"], r["value"]): r["training_state_bytes"] for r in found["results"]}
    assert len(states) == 6
    for method in ("mdpd", "full"):
        rise, _, off = slope([(v, states[method, v]) for v in (3, 6, 12)])
        assert rise > 0 and off < 0.02
    page = tmp_path / "memory.md"
    start, end = "<!-- measured: written by tools/compare/memory_page.py -->", "<!-- end of measured -->"
    page.write_text(f"before\n{start}\nold\n{end}\nafter\n")
    assert run("memory", page, "--scaling", out).returncode == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith(f"{end}\nafter\n") and "old" not in text
    assert f"{states['mdpd', 12] / 2**20:.1f}" in text


def test_a_page_without_the_marks_is_left_alone(tmp_path):
    page = tmp_path / "memory.md"
    page.write_text("mine\n")
    result = run("memory", page)
    assert result.returncode == 2 and "measured" in result.stderr and page.read_text() == "mine\n"


@pytest.mark.parametrize("rise, start", [(2.0, 5.0), (-1.0, 0.5)])
def test_the_slope_of_a_line_is_found(rise, start):
    points = [(x, start + rise * x) for x in (1, 2, 7)]
    assert slope(points) == pytest.approx((rise, start, 0.0), abs=1e-9)
