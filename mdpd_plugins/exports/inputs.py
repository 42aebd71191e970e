"""What people hand to `mdpd predict`: files, folders, tables, lines and texts, as a list of examples."""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdpd_plugins.data.images import SUFFIXES, read_image
from mdpd_plugins.data.picture_check import broken_pictures
from mdpd_plugins.data.picture_files import pictures_below
from mdpd_plugins.data.sources.table import SUFFIXES as TABLES
from mdpd_plugins.data.sources.table import read_table
from mdpd_plugins.data.unusable import is_empty, listed
from mdpd_plugins.registry.errors import ConfigError, DataError, DataWarning, closest

LINES = "-"


@dataclass(frozen=True)
class Input:
    """One thing to predict.

    Attributes:
        name: the path of an image, or the text. pair: the second text, or the text beside an image, if there is one.
        modality: "image", "text" or "image-text".
        place: where in a table it stands, in words; "" for what comes from none.
        others: the other columns of its row, plain values.
    """

    name: str
    modality: str
    pair: str | None = None
    place: str = field(default="", compare=False)
    others: Mapping[str, Any] = field(default_factory=dict)

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
    """The columns of tables that are read; None for those not named.

    `known`: what they were called in training ("text", "text_pair", "image" -> name), for those not named. A table
    without that column may have one called "text" or "image".
    """

    text: str | None = None
    text_pair: str | None = None
    image: str | None = None
    known: Mapping[str, str] = field(default_factory=dict)


def read_inputs(
    given: Sequence[str],
    modality: str,
    columns: TableColumns | None = None,
    lines: Iterable[str] = (),
    *,
    skip_broken: bool = False,
) -> list[Input]:
    """Make out what each of `given` is, for a model that reads `modality`.

    Args:
        given: for images their files and folders of them; for texts the texts themselves; for both tables (CSV, TSV,
            JSON Lines, parquet, Excel), whose image paths start from the table's folder, and "-" for `lines`. For
            images with texts: tables.
        modality: "image", "text" or "image-text".
        columns: of tables; by default "image", or "text" alone.
        lines: one text or one image file each; those with nothing but white space are left out.
        skip_broken: leave out, with a warning, what cannot be used: images that are missing or do not decode, and
            empty texts.

    Raises:
        DataError: images that are missing or do not decode, or empty texts (all of them are named); a table without
            rows or without the column; or nothing to predict at all.
        ConfigError: something that a model of this modality cannot read.
    """
    columns = columns or TableColumns()
    if modality == "image-text":
        found = [one for item in given for one in _questions(item, columns)]
    elif modality == "image":
        if columns.text or columns.text_pair:
            raise ConfigError("this export reads images: --text-column is for exports that read texts")
        found = _all(given, lines, lambda item: _images(item, columns))
    else:
        if columns.image:
            raise ConfigError("this export reads texts: --image-column is for exports that read images")
        found = _all(given, lines, lambda item: _texts(item, columns))
    if not found:
        raise DataError(f"there is nothing to predict in {', '.join(map(repr, given)) or 'no input'}")
    return _usable(found, skip_broken)


def _usable(found: list[Input], skip_broken: bool) -> list[Input]:
    """The inputs that can be used; an error that names the others, or a warning."""
    faults: dict[int, str] = {}
    if found[0].modality != "image":
        texts = [one.pair if one.modality == "image-text" else (one.name, one.pair) for one in found]
        faults |= {i: f"{found[i].place or 'a text'}: it is empty" for i, text in enumerate(texts) if is_empty(text)}
    if found[0].modality != "text":
        broken = broken_pictures([one.name for one in found])
        faults |= {i: f"image {found[i].name} {fault}" for i, fault in broken.items()}
    if not faults:
        return found
    named = listed([faults[i] for i in sorted(faults)])
    count = f"{len(faults)} of {len(found)} inputs cannot be used"
    if not skip_broken or len(faults) == len(found):
        raise DataError(f"{count}: {named}. Mend them, or leave them out with --skip-broken")
    warnings.warn(f"{count} and are left out: {named}", DataWarning, stacklevel=3)
    return [one for i, one in enumerate(found) if i not in faults]


def _all(given: Sequence[str], lines: Iterable[str], read: Callable[[str], list[Input]]) -> list[Input]:
    found = []
    for item in given:
        each = [stripped for line in lines if (stripped := line.strip())] if item == LINES else [item]
        for one in each:
            found += read(one)
    return found


def _images(item: str, columns: TableColumns) -> list[Input]:
    path = Path(item)
    if path.is_dir():
        files = pictures_below(path)
        if not files:
            raise DataError(f"folder {item} holds no image ({', '.join(sorted(SUFFIXES))})")
        return [Input(str(p), "image") for p in files]
    if path.suffix.lower() in TABLES:
        return _rows(path, {"image": _wanted("image", columns.image, columns)})
    if not _is_file(path):
        near = [p.name for p in path.parent.iterdir()] if _is_folder(path.parent) else []
        hint = f" ({closest(path.name, near)})" if near and not _looks_like_text(item) else ""
        raise DataError(f"this export reads images, and there is no image file {item!r}{hint}")
    return [Input(item, "image")]


def _texts(item: str, columns: TableColumns) -> list[Input]:
    path = Path(item)
    exists = _is_file(path) or ("/" in item and _is_folder(path))  # a word may well be the name of a folder here
    if exists or not _looks_like_text(item):
        suffix = path.suffix.lower()
        if suffix in TABLES:
            uses = {"text": _wanted("text", columns.text, columns)}
            if columns.text_pair or "text_pair" in columns.known:
                uses["text_pair"] = _wanted("text_pair", columns.text_pair, columns)
            return _rows(path, uses)
        if suffix in SUFFIXES:
            raise ConfigError(f"this export reads texts, and {item!r} is the name of an image")
        if exists:
            raise ConfigError(
                f"this export reads texts, and {item!r} exists as a file or folder: give its lines with `-` "
                f"(`mdpd predict EXPORT - < {item}`), or a table ({', '.join(TABLES)})"
            )
    if columns.text_pair is not None:
        raise ConfigError(f"--text-pair-column is for tables, and {item!r} is a text")
    if not item.strip():
        raise DataError("an empty text was given: there is nothing to predict")
    return [Input(item, "text")]


def _questions(item: str, columns: TableColumns) -> list[Input]:
    if Path(item).suffix.lower() not in TABLES:
        raise ConfigError(
            f"this export reads an image with a text, and {item!r} is no table of them: give one ({', '.join(TABLES)}) "
            f"with --image-column and --text-column"
        )
    return _rows(Path(item), {use: _wanted(use, getattr(columns, use), columns) for use in ("image", "text")})


def _wanted(use: str, named: str | None, columns: TableColumns) -> tuple[str, ...]:
    """Names under which a table may have the column for `use`, the first that is there to be taken."""
    if named is not None:
        return (named,)
    return tuple(dict.fromkeys(name for name in (columns.known.get(use), use) if name))


def _rows(path: Path, uses: Mapping[str, tuple[str, ...]]) -> list[Input]:
    """The rows of a table. `uses`: "image", "text", "text_pair" -> the names that its column may have."""
    # Read once, for its columns and for the values; of CSV the columns also say what separates them.
    table = read_table(path, None, [], every=True)
    have = {use: next((name for name in names if name in table.columns), None) for use, names in uses.items()}
    for use, name in have.items():
        if name is None:
            option = f"--{use.replace('_', '-')}-column"
            raise DataError(
                f"table {path} has no column {' or '.join(map(repr, uses[use]))} "
                f"({closest(uses[use][0], table.columns)}); its columns: {', '.join(table.columns)}. "
                f"Say which one it is with {option}"
            )
    cells = {use: table.columns[str(name)] for use, name in have.items()}
    others = {name: values for name, values in table.columns.items() if name not in have.values()}
    found = []
    for row in range(len(table.lines)):
        place = table.place(row)
        given = {use: _cell(values[row], use, have[use], place) for use, values in cells.items()}
        rest = {name: _plain(values[row]) for name, values in others.items()}
        if "image" in given:
            # An absolute path stays what it is.
            image = str(path.parent / given["image"])
            modality = "image-text" if "text" in given else "image"
            found.append(Input(image, modality, given.get("text"), place, rest))
        else:
            found.append(Input(given["text"], "text", given.get("text_pair"), place, rest))
    return found


def _cell(value: Any, use: str, column: str | None, place: str) -> str:
    if use == "image" and (not isinstance(value, str) or not value):
        raise DataError(f"{place}: column {column!r} holds {reprlib.repr(value)}, not the path of an image")
    if not isinstance(value, str) and value is not None:
        raise DataError(f"{place}: column {column!r} holds {type(value).__name__}, not text")
    return value or ""


def _plain(value: Any) -> Any:
    """A cell of another column as JSON can hold it: dates and decimals as text, bytes not at all."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


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
