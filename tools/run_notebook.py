"""python -m tools.run_notebook docs/tutorial.ipynb: run a notebook from top to bottom and store its outputs in it."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient


def executed(path: Path, parameters: str = "") -> Any:
    """The notebook with the outputs that it has now, run in a temporary folder.

    Args:
        parameters: what stands in place of the code of the cell that is tagged so.

    Raises:
        CellExecutionError: a cell raised something.
    """
    notebook = nbformat.read(path, as_version=4)
    if parameters:
        (cell,) = tagged(notebook, "parameters")
        cell.source = parameters
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":
            # Progress bars and warnings are nothing to read.
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def tagged(notebook: Any, tag: str) -> list[Any]:
    """The cells with a tag."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def printed(cell: Any) -> str:
    """What a cell printed."""
    return "".join(out.text for out in cell.outputs if out.output_type == "stream")


def main(arguments: list[str]) -> int:
    """Run notebooks and write them."""
    for argument in arguments:
        notebook = executed(Path(argument))
        text = nbformat.writes(notebook, indent=1)
        Path(argument).write_text(re.sub(r"\s*\Z", "\n", text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
