"""What people hand to `mdpd predict`: files, folders, tables, lines and texts, as a list of examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpd_plugins.data.images import SUFFIXES, check_images, read_image
from mdpd_plugins.data.sources.table import SUFFIXES as TABLES
from mdpd_plugins.data.sources.table import read_table
from mdpd_plugins.registry.errors import ConfigError, DataError, closest

LINES = "-"


@dataclass(frozen=True)
class Input:
    """One thing to predict.

    Attributes:
        name: the path of an image, or the text. pair: the second text, or the text beside an image, if there is one.
        modality: "image", "text" or "image-text".
    """

    name: str
    modality: str
    pair: str | None = None

    def read(self) -> Any:
        """The example: a `PIL.Image` in RGB, a text, a pair of texts, or an image with a text.

        Raises:
            DataError: the image does not decode.
        """
        if self.modality == "image":
            return read_image(self.name)
        if self.modality == "image-text":
            return read_image(self.name), self.pair
        return self.name if self.pair is None else (self.name, self.pair)


@dataclass(frozen=True)
class TableColumns:
    """The columns of tables that are read; None for those not named."""

    text: str | None = None
    text_pair: str | None = None
    image: str | None = None


def read_inputs(
    given: Sequence[str], modality: str, columns: TableColumns | None = None, lines: Iterable[str] = ()
) -> list[Input]:
    """Make out what each of `given` is, for a model that reads `modality`.

    Args:
        given: for images their files and folders of them; for texts the texts themselves; for both tables (CSV, TSV,
            JSON Lines), whose image paths start from the table's folder, and "-" for `lines`. For images with texts:
            tables.
        modality: "image", "text" or "image-text".
        columns: of tables; by default "image", or "text" alone.
        lines: one text or one image file each; those with nothing but white space are left out.

    Raises:
        DataError: a file that is missing or is no image, a table without rows or without the column, or nothing to
            predict at all.
        ConfigError: something that a model of this modality cannot read.
    """
    columns = columns or TableColumns()
    if modality == "image-text":
        found = [one for item in given for one in _questions(item, columns.image or "image", columns.text or "text")]
        check_images(Path(i.name) for i in found)
    elif modality == "image":
        if columns.text or columns.text_pair:
            raise ConfigError("this export reads images: --text-column is for exports that read texts")
        found = _all(given, lines, lambda item: _images(item, columns.image or "image"))
        check_images(Path(i.name) for i in found)
    else:
        if columns.image:
            raise ConfigError("this export reads texts: --image-column is for exports that read images")
        found = _all(given, lines, lambda item: _texts(item, columns.text or "text", columns.text_pair))
    if not found:
        raise DataError(f"there is nothing to predict in {', '.join(map(repr, given)) or 'no input'}")
    return found


def _all(given: Sequence[str], lines: Iterable[str], read: Callable[[str], list[Input]]) -> list[Input]:
    found = []
    for item in given:
        each = [stripped for line in lines if (stripped := line.strip())] if item == LINES else [item]
        for one in each:
            found += read(one)
    return found


def _images(item: str, column: str) -> list[Input]:
    path = Path(item)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not files:
            raise DataError(f"folder {item} holds no image ({', '.join(sorted(SUFFIXES))})")
        return [Input(str(p), "image") for p in files]
    if path.suffix.lower() in TABLES:
        table = read_table(path, None, [column])
        for line, value in zip(table.lines, table.columns[column], strict=True):
            if not isinstance(value, str) or not value:
                raise DataError(f"{item}, line {line}: column {column!r} holds {value!r}, not the path of an image")
        return [Input(str(path.parent / value), "image") for value in table.columns[column]]
    if not _is_file(path):
        near = [p.name for p in path.parent.iterdir()] if _is_folder(path.parent) else []
        hint = f" ({closest(path.name, near)})" if near and not _looks_like_text(item) else ""
        raise DataError(f"this export reads images, and there is no image file {item!r}{hint}")
    return [Input(item, "image")]


def _texts(item: str, column: str, pair: str | None) -> list[Input]:
    path = Path(item)
    exists = _is_file(path) or ("/" in item and _is_folder(path))  # a word may well be the name of a folder here
    if exists or not _looks_like_text(item):
        suffix = path.suffix.lower()
        if suffix in TABLES:
            return _rows(path, column, pair)
        if suffix in SUFFIXES:
            raise ConfigError(f"this export reads texts, and {item!r} is the name of an image")
        if exists:
            raise ConfigError(
                f"this export reads texts, and {item!r} exists as a file or folder: give its lines with `-` "
                f"(`mdpd predict EXPORT - < {item}`), or a table ({', '.join(TABLES)})"
            )
    if pair is not None:
        raise ConfigError(f"--text-pair-column is for tables, and {item!r} is a text")
    if not item.strip():
        raise DataError("an empty text was given: there is nothing to predict")
    return [Input(item, "text")]


def _rows(path: Path, column: str, pair: str | None) -> list[Input]:
    names = [column] if pair is None else [column, pair]
    table = read_table(path, None, names)
    for name in names:
        for line, value in zip(table.lines, table.columns[name], strict=True):
            if not isinstance(value, str):
                raise DataError(f"{path}, line {line}: column {name!r} holds {type(value).__name__}, not text")
    seconds = [None] * len(table.lines) if pair is None else table.columns[pair]
    return [Input(first, "text", second) for first, second in zip(table.columns[column], seconds, strict=True)]


def _questions(item: str, image: str, text: str) -> list[Input]:
    if Path(item).suffix.lower() not in TABLES:
        raise ConfigError(
            f"this export reads an image with a text, and {item!r} is no table of them: give one ({', '.join(TABLES)}) "
            f"with --image-column and --text-column"
        )
    pictures = _images(item, image)
    return [Input(p.name, "image-text", t.name) for p, t in zip(pictures, _rows(Path(item), text, None), strict=True)]


def _looks_like_text(item: str) -> bool:
    return any(map(str.isspace, item)) or not Path(item).suffix


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text is too long to be a name, or holds a zero byte
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


__all__ = ["Input", "TableColumns", "read_inputs"]
