"""Source type `table`: texts, pairs or image paths with labels, in CSV, TSV, JSON Lines, parquet or Excel files."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpd_plugins.data.labels import check_label_kind
from mdpd_plugins.data.source import Source
from mdpd_plugins.data.sources.columns import Columns, check_columns, open_columns
from mdpd_plugins.registry import ConfigError, DataError, MissingDependencyError, closest

_SEPARATORS = (",", ";", "\t", "|")
_JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (".csv", ".tsv", *_JSON_LINES, ".parquet", ".xlsx")
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
    description: str | None = None,
) -> dict[str, Source]:
    """Open one file that is to be split (`path`), or one file per split (`train`, `val`, `test`).

    Args:
        label_column: column of the labels: class names, class indices, lists of them (JSON Lines) or several
            in one field (`label_separator`), or numbers to predict; `label_kind` says which. For "pair" there
            need be none, see there, and for "none" it is not read.
        path: the one file: `.csv`, `.tsv`, `.jsonl`, `.parquet`, or `.xlsx`, of which the first sheet is read. Text
            files are UTF-8; `.csv`, `.tsv` and sheets start with a line of column names.
        text_column: column of the text; with `text_pair_column` the first text of a pair.
        image_column: column of image paths, instead of text; or beside it, for pictures with a text: a
            question (the label is its answer) or a caption.
        image_root: folder that image paths start from; by default the folder of the file.
        label_kind: "single", "multi", "float", "none" for inputs without labels, or "pair" for retrieval: each row is
            a picture and a text that belong together. Rows with the same picture, or with a label column those that
            share their label, are about one item, and each of their texts is a right answer for each of their pictures.
        classes: class names in index order; by default what the training labels hold, sorted.
        delimiter: what separates CSV fields; by default that of `,`, `;`, tab and `|` with which the first line holds
            the columns.
        description: what the data is, its licence and origin, for the model card.

    Returns:
        Pool name ("train", "val", "test") -> source.

    Raises:
        ConfigError: no file or two kinds of it given, no input column, or columns that do not go together.
        DataError: a missing file or column (the columns are listed), an empty file, a broken row, or a label outside
            the classes; each named with its line.
        MissingDependencyError: the package that reads parquet or Excel files is not installed.
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
        where=lambda pool, i: tables[pool].place(i),
        image_roots=roots,
        description=about,
    )


@dataclass(frozen=True)
class Table:
    """Columns of a file: name -> values. `lines`: the line that each row ends on, or its number."""

    path: Path
    columns: dict[str, list[Any]]
    lines: Sequence[int]
    unit: str = "line"

    def place(self, row: int) -> str:
        """Words that lead to a row."""
        return f"{self.path}, {self.unit} {self.lines[row]}"


def read_table(path: Path, delimiter: str | None, wanted: Sequence[str], *, every: bool = False) -> Table:
    """The columns `wanted` of a file, or with `every` all that it has.

    Raises:
        DataError: it is missing, empty, no table or broken, or has no such column (its columns are listed).
        MissingDependencyError: the package that reads this kind of file is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: tables end in {', '.join(SUFFIXES)}, not {suffix!r}; {closest(suffix, SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"table {path} does not exist; correct its path")
    try:
        if suffix in _JSON_LINES:
            table = _read_json_lines(path, wanted, every)
        elif suffix == ".parquet":
            table = _read_parquet(path, wanted, every)
        elif suffix == ".xlsx":
            table = _read_xlsx(path, wanted, every)
        else:
            table = _read_csv(path, delimiter or _delimiter(path, suffix, wanted), wanted, every)
    except UnicodeDecodeError as error:
        raise DataError(f"table {path} is not UTF-8 ({error}); convert it, for example with iconv") from error
    if not table.lines:
        raise DataError(f"table {path} is empty: it holds no rows")
    return table


def _delimiter(path: Path, suffix: str, wanted: Sequence[str]) -> str:
    """What separates the fields: that which makes the wanted columns of the first line, or else the most columns."""
    if suffix == ".tsv":
        return "\t"

    def columns(delimiter: str) -> list[str]:
        with path.open(encoding="utf-8-sig", newline="") as file, contextlib.suppress(csv.Error):  # said by _read_csv
            return next(csv.reader(file, delimiter=delimiter), [])
        return []

    headers = {delimiter: columns(delimiter) for delimiter in _SEPARATORS}  # of equals the first, which is the comma
    return max(headers, key=lambda d: (len({*wanted} & {*headers[d]}), len(headers[d])))


def _read_csv(path: Path, delimiter: str, wanted: Sequence[str], every: bool) -> Table:
    lines: list[int] = []
    # Articles may be longer than the csv module's limit of 131072 characters; the limit is global, so put it
    # back.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(reader, [])
            places = _places(header, wanted, every, f"table {path}")
            columns: dict[str, list[Any]] = {name: [] for name in places}
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} fields, but the header has "
                        f"{len(header)}; fields that hold {delimiter!r} or line breaks need double quotes"
                    )
                lines.append(reader.line_num)
                for name, place in places.items():
                    columns[name].append(row[place])
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error
    finally:
        csv.field_size_limit(limit)
    return Table(path, columns, lines)


def _places(header: Sequence[Any], wanted: Sequence[str], every: bool, what: str) -> dict[str, int]:
    """Column -> where it stands."""
    names = ["" if name is None else str(name) for name in header]
    check_columns(wanted, names, what)
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise DataError(f"{what} has {names.count(twice[0])} columns {twice[0]!r}; rename all but one of them")
    return {name: names.index(name) for name in dict.fromkeys(names if every else wanted) if name}


def _read_json_lines(path: Path, wanted: Sequence[str], every: bool) -> Table:
    rows: list[dict[str, Any]] = []
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
            rows.append(row if every else {name: row[name] for name in wanted})
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(path, {name: [row.get(name) for row in rows] for name in names}, lines)


def _read_parquet(path: Path, wanted: Sequence[str], every: bool) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise _missing(path, "pyarrow", error) from error
    try:
        names = parquet.read_schema(path).names
        check_columns(wanted, names, f"table {path}")
        table = parquet.read_table(path, columns=names if every else list(dict.fromkeys(wanted)))
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
    except (ArrowException, OSError) as error:
        raise DataError(f"table {path} is not readable parquet ({error}); write it again") from error
    return Table(path, columns, range(1, table.num_rows + 1), "row")


def _read_xlsx(path: Path, wanted: Sequence[str], every: bool) -> Table:
    """The first sheet of an Excel file. A formula counts as the value that Excel stored for it."""
    try:
        import openpyxl
    except ImportError as error:
        raise _missing(path, "openpyxl", error) from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = [list(row) for row in book.worksheets[0].iter_rows(values_only=True)]
        book.close()
    except Exception as error:  # whatever it raises for files that are no Excel's
        raise DataError(f"table {path} is not a readable xlsx file ({error}); save it again, or as CSV") from error
    header = rows[0] if rows else []
    places = _places(header, wanted, every, f"table {path}, first sheet")
    # Numbered as Excel numbers them. Rows that were cleared are still there, with nothing in them.
    filled = [(number, row) for number, row in enumerate(rows[1:], start=2) if any(cell is not None for cell in row)]
    columns = {name: [row[place] if place < len(row) else None for _, row in filled] for name, place in places.items()}
    return Table(path, columns, [number for number, _ in filled], "row")


def _missing(path: Path, package: str, error: ImportError) -> MissingDependencyError:
    return MissingDependencyError(
        f"reading {path} needs the package {package!r} ({error}); install it with: pip install 'mdpd-plugins[data]'"
    )
