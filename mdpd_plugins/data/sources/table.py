"""Source type `table`: texts, text pairs or image paths with labels, in CSV, TSV or JSON Lines files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpd_plugins.data.labels import check_label_kind
from mdpd_plugins.data.source import Source
from mdpd_plugins.data.sources.columns import Columns, check_columns, open_columns
from mdpd_plugins.registry import ConfigError, DataError, closest

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*_DELIMITERS, *_JSON_LINES)
"""File name endings (lower case) of tables."""


def open_table(
    *,
    label_column: str | None = None,
    path: str | None = None,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    image_column: str | None = None,
    image_root: str | None = None,
    label_kind: str = "single",
    label_separator: str = "|",
    classes: Iterable[str] | None = None,
    delimiter: str | None = None,
    verify: bool = True,
    description: str | None = None,
) -> dict[str, Source]:
    """Open one file that is to be split (`path`), or one file per split (`train`, `val`, `test`).

    Args:
        label_column: column of the labels: class names, class indices, lists of them (JSON Lines) or several
            in one field (`label_separator`), or numbers to predict; `label_kind` says which. For "pair" there
            need be none, see there.
        path: the one file. Files are UTF-8; `.csv` and `.tsv` start with a line of column names.
        text_column: column of the text; with `text_pair_column` the first text of a pair.
        image_column: column of image paths, instead of text; or beside it, for pictures with a text: a
            question (the label is its answer) or a caption.
        image_root: folder that image paths start from; by default the folder of the file.
        label_kind: "single", "multi", "float", or "pair" for retrieval: each row is a picture and a text that
            belong together. Rows with the same picture, or with a label column those that share their label, are
            about one item, and each of their texts is a right answer for each of their pictures.
        classes: class names in index order; by default what the training labels hold, sorted.
        delimiter: what separates CSV fields; by default `,`, for `.tsv` a tab.
        verify: read every image's header now.
        description: what the data is, its licence and origin, for the model card.

    Returns:
        Pool name ("train", "val", "test") -> source.

    Raises:
        ConfigError: no file or two kinds of it given, no input column, or columns that do not go together.
        DataError: a missing file or column (the columns are listed), an empty file, a broken row, a label
            outside the classes, an image that is missing or is none; each named with its line.
    """
    files = {"train": train or path, "val": val, "test": test}
    if bool(train) == bool(path):
        raise ConfigError("data type 'table' needs either path= (one file, to be split) or train= (with val=, test=)")
    columns = Columns(label_column, text_column, text_pair_column, image_column, check_label_kind(label_kind))
    given = {pool: Path(file).expanduser() for pool, file in files.items() if file}
    tables = {pool: read_table(path, delimiter, columns.names) for pool, path in given.items()}
    roots = {pool: Path(image_root).expanduser() if image_root else t.path.parent for pool, t in tables.items()}
    about = description or f"Table {', '.join(table.path.name for table in tables.values())}."
    return open_columns(
        {pool: table.columns for pool, table in tables.items()},
        columns,
        classes=classes,
        separator=label_separator,
        where=lambda pool, i: f"{tables[pool].path}, line {tables[pool].lines[i]}",
        image_roots=roots,
        verify=verify,
        description=about,
    )


@dataclass(frozen=True)
class Table:
    """Columns of a file: name -> values. `lines`: the line that each row ends on."""

    path: Path
    columns: dict[str, list[Any]]
    lines: list[int]


def read_table(path: Path, delimiter: str | None, wanted: Sequence[str]) -> Table:
    """The columns `wanted` of a file.

    Raises:
        DataError: it is missing, empty, no table or broken, or has no such column (its columns are listed).
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: tables end in {', '.join(SUFFIXES)}, not {suffix!r}; {closest(suffix, SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"table {path} does not exist; correct its path")
    try:
        if suffix in _JSON_LINES:
            table = _read_json_lines(path, wanted)
        else:
            table = _read_csv(path, delimiter or _DELIMITERS[suffix], wanted)
    except UnicodeDecodeError as error:
        raise DataError(f"table {path} is not UTF-8 ({error}); convert it, for example with iconv") from error
    if not table.lines:
        raise DataError(f"table {path} is empty: it holds no rows")
    return table


def _read_csv(path: Path, delimiter: str, wanted: Sequence[str]) -> Table:
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    lines: list[int] = []
    # Articles may be longer than the csv module's limit of 131072 characters; the limit is global, so put it
    # back.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(reader, [])
            check_columns(wanted, header, f"table {path}")
            places = [header.index(name) for name in wanted]
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} fields, but the header has "
                        f"{len(header)}; fields that hold {delimiter!r} or line breaks need double quotes"
                    )
                lines.append(reader.line_num)
                for name, place in zip(wanted, places, strict=True):
                    columns[name].append(row[place])
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error
    finally:
        csv.field_size_limit(limit)
    return Table(path, columns, lines)


def _read_json_lines(path: Path, wanted: Sequence[str]) -> Table:
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    lines: list[int] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: a JSON object is needed, not {type(row).__name__}")
            check_columns(wanted, row, f"{path}, line {number}")
            lines.append(number)
            for name in wanted:
                columns[name].append(row[name])
    return Table(path, columns, lines)
