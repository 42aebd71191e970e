"""What of a user's own data is what: an image folder, or the columns of a table, guessed from names and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdpd_plugins.data.images import SUFFIXES as IMAGES
from mdpd_plugins.data.sources.table import SUFFIXES as TABLES
from mdpd_plugins.data.sources.table import read_table
from mdpd_plugins.registry import ConfigError, DataError

LOOKED_AT = 200  # rows that tell what a column is
# What such columns are usually called, the likeliest first (our choice).
LABELS = ("label", "labels", "class", "category", "target", "y", "topic", "intent", "sentiment", "answer", "score")
TEXTS = ("text", "sentence", "content", "question", "review", "comment", "message", "body", "title", "description")


def guess_source(path: Path, named: Mapping[str, str | None]) -> dict[str, Any]:
    """The section `data.source` for an image folder or a table.

    Args:
        named: "text_column", "image_column", "label_column" -> what the user says of it, if anything.

    Raises:
        ConfigError: it is neither, or a column that is not there or cannot be guessed; the columns are listed.
        DataError: a table that cannot be read.
    """
    if path.is_dir():
        if given := [key for key, value in named.items() if value]:
            raise ConfigError(f"--{given[0].replace('_', '-')} is for tables, and {str(path)!r} is a folder")
        return {"type": "image_folder", "root": str(path.absolute())}
    if path.suffix.lower() not in TABLES or not path.is_file():
        raise ConfigError(
            f"{str(path)!r} is neither a folder of images, one sub-folder a class, nor a table ({', '.join(TABLES)})"
        )
    columns = {k: list(v[:LOOKED_AT]) for k, v in read_table(path, None, [], every=True).columns.items()}
    if not columns or not any(columns.values()):
        raise DataError(f"table {path} has no rows")
    for key, value in named.items():
        if value and value not in columns:
            raise ConfigError(f"{path} has no column {value!r} for --{key.replace('_', '-')}: {', '.join(columns)}")
    left = [name for name in columns if name not in named.values()]
    image = named.get("image_column") or next((n for n in left if _are_images(columns[n])), None)
    left = [name for name in left if name != image]
    label = named.get("label_column") or _label(left, columns, path)
    left = [name for name in left if name != label]
    text = named.get("text_column") or _text(left, columns, needed=image is None)
    if image is None and text is None:
        raise ConfigError(
            f"none of {path}'s columns looks like texts or images ({', '.join(columns)}): say which one it is with "
            f"--text-column or --image-column"
        )
    chosen = {"text_column": text, "image_column": image, "label_column": label}
    kind = _kind(columns[label])
    found = {"type": "table", "path": str(path.absolute()), **{key: name for key, name in chosen.items() if name}}
    return {**found, **({} if kind == "single" else {"label_kind": kind})}


def modality_of(source: Mapping[str, Any]) -> str:
    """What a guessed source holds: "image", "text" or "image-text"."""
    if source["type"] == "image_folder":
        return "image"
    has = [key for key in ("image", "text") if f"{key}_column" in source]
    return "-".join(has)


def _are_images(values: Sequence[Any]) -> bool:
    paths = [isinstance(v, str) and Path(v[-50:]).suffix.lower() in IMAGES for v in values]
    return sum(paths) > len(paths) / 2


def _usual(names: Sequence[str], usual: Sequence[str]) -> str | None:
    by_name = {name.lower(): name for name in names}
    return next((by_name[name] for name in usual if name in by_name), None)


def _label(names: Sequence[str], columns: Mapping[str, list[Any]], path: Path) -> str:
    if found := _usual(names, LABELS):
        return found
    few = [n for n in names if 1 < len(set(map(str, columns[n]))) <= max(2, len(columns[n]) // 4)]
    if len(few) != 1:
        raise ConfigError(
            f"which of {path}'s columns is the label? Say it with --label-column; its columns: {', '.join(columns)}"
        )
    return few[0]


def _text(names: Sequence[str], columns: Mapping[str, list[Any]], *, needed: bool) -> str | None:
    if found := _usual(names, TEXTS):
        return found
    texts = [n for n in names if all(isinstance(v, str) for v in columns[n]) and not _numbers(columns[n])]
    return max(texts, key=lambda n: sum(map(len, columns[n]))) if texts and needed else None


def _numbers(values: Sequence[Any]) -> bool:
    try:
        return all(isinstance(float(v), float) for v in values)
    except (TypeError, ValueError):
        return False


def _kind(values: Sequence[Any]) -> str:
    if any(isinstance(v, list) or (isinstance(v, str) and "|" in v) for v in values):
        return "multi"
    return "float" if _numbers(values) and any(float(v) % 1 for v in values) else "single"


__all__ = ["guess_source", "modality_of"]
