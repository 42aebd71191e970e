"""Rows of predictions as a table, JSON, JSON Lines or CSV, on the screen or in a file."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from mdpd_plugins.console import console
from mdpd_plugins.exports.predict import Row
from mdpd_plugins.files import fresh_file
from mdpd_plugins.registry.errors import ConfigError

GIVEN = ("input", "pair")  # keys of a row that are not predicted
LONGEST = 60  # characters of a text or path that a table shows (our choice: half of a file's line)


def write_rows(rows: Sequence[Row], form: str, out: Path | None = None) -> None:
    """Print rows of `predict`, or put them into a file that appears whole or not at all.

    Args:
        form: one of `FORMATS`.
        out: a file to write instead of standard output.
    """
    if out is None:
        FORMATS[form](rows, sys.stdout)
        return
    with fresh_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        FORMATS[form](rows, file)


def check_out(out: Path | None) -> None:
    """Said before the work, and not when it is done.

    Raises:
        ConfigError: the file's folder does not exist, or a folder has its name.
    """
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise ConfigError(f"{str(out)!r} cannot be written: it must be a file in a folder that exists")


def _json(rows: Sequence[Row], file: TextIO) -> None:
    file.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


def _jsonl(rows: Sequence[Row], file: TextIO) -> None:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _csv(rows: Sequence[Row], file: TextIO) -> None:
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(file, list(dict.fromkeys(key for row in flat for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)


def _table(rows: Sequence[Row], file: TextIO) -> None:
    from rich.table import Table
    from rich.text import Text

    flat = [_flat(row, digits=4) for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = list(dict.fromkeys(key for row in flat for key in row))
    for column in columns:
        numeric = column.startswith(("probability", "value"))
        # In a narrow terminal what was given is folded, and what was predicted is not.
        table.add_column(
            column.replace("_", " "),
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=column not in GIVEN and column != "labels",
        )
    for row in flat:
        cells = {column: " ".join(str(row.get(column, "")).split()) for column in columns}
        table.add_row(*(Text(_shortened(cell) if column in GIVEN else cell) for column, cell in cells.items()))
    console(file=file).print(table)


def _shortened(text: str) -> str:
    # A text is known by how it begins, a path by how it ends.
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}…{text[1 - half :]}"


def _flat(row: Row, digits: int | None = None) -> dict[str, Any]:
    """One cell a column: further labels of one input in columns of their own, several labels between bars."""

    def number(value: float) -> Any:
        return value if digits is None else f"{value:.{digits}f}"

    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key == "top":
            for place, one in enumerate(value[1:], start=2):
                flat[f"label_{place}"], flat[f"probability_{place}"] = one["label"], number(one["probability"])
        elif key == "labels":
            flat["labels"] = "|".join(one["label"] for one in value)
            flat["probabilities"] = "|".join(str(number(one["probability"])) for one in value)
        else:
            flat[key] = number(value) if isinstance(value, float) else value
    return flat


FORMATS: dict[str, Callable[[Sequence[Row], TextIO], None]] = {
    "table": _table,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
}

__all__ = ["FORMATS", "check_out", "write_rows"]
