"""From columns of texts, images and labels to sources; what tables and HuggingFace data sets share."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from mdpd_plugins.data.images import read_image, read_image_text
from mdpd_plugins.data.labels import Where, check_label_kind, encode_pools, number_items
from mdpd_plugins.data.source import LabelKind, Source, as_is
from mdpd_plugins.registry import ConfigError, DataError, closest


@dataclass(frozen=True)
class Columns:
    """Names of the columns, and what the labels are.

    Texts (with an optional second text), images, or both: then each example is a picture with a text. Labels of
    kind "pair" need no column: rows with the same picture are then about the same item. With one, rows with the
    same value in it are.

    Raises:
        ConfigError: columns that do not go together, or no label column where one is needed.
    """

    label: str | None
    text: str | None = None
    text_pair: str | None = None
    image: str | None = None
    kind: LabelKind = "single"

    def __post_init__(self) -> None:
        check_label_kind(self.kind)
        if self.text is None and self.image is None:
            raise ConfigError("name text_column, image_column, or both in the data configuration")
        if self.text_pair is not None and (self.text is None or self.image is not None):
            raise ConfigError("text_pair_column needs text_column, the first text of each pair, and no image_column")
        if self.kind == "pair" and (self.text is None or self.image is None):
            raise ConfigError("label_kind='pair' is for pictures with texts: name both image_column and text_column")
        if self.kind not in ("pair", "none") and self.label is None:
            raise ConfigError(
                f"label_kind={self.kind!r} needs the key 'label_column'; add it to the data configuration"
            )

    @property
    def used(self) -> dict[str, str]:
        """What each column of the inputs is for: "text", "text_pair", "image" -> its name."""
        inputs = {"text": self.text, "text_pair": self.text_pair, "image": self.image}
        return {use: name for use, name in inputs.items() if name is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """Every column that is read."""
        label = None if self.kind == "none" else self.label
        return tuple(c for c in (self.text, self.text_pair, self.image, label) if c is not None)


def open_columns(
    pools: Mapping[str, Mapping[str, Sequence[Any]]],
    columns: Columns,
    *,
    classes: Iterable[str] | None,
    separator: str | None,
    where: Where,
    image_roots: Mapping[str, Path],
    description: str,
    fingerprints: Mapping[str, str] | None = None,
) -> dict[str, Source]:
    """Make one source of each pool's columns (pool name -> column name -> values).

    Args:
        fingerprints: of pools whose pictures are not files of their own (see `Source.fingerprint`).

    Raises:
        ConfigError, DataError: as `encode_pools`, and for inputs that are no text or image.
    """
    images: dict[str, Sequence[Any]] = {}
    if columns.image is not None:
        images = {p: _images(v[columns.image], image_roots.get(p), p, where) for p, v in pools.items()}
    same = columns.image is not None and columns.text is not None
    pictures = number_items({pool: _identities(items) for pool, items in images.items()}) if same else {}
    labels, known = encode_pools(
        {pool: _labels(values, columns, pictures.get(pool)) for pool, values in pools.items()},
        kind=columns.kind,
        classes=classes,
        where=where,
        separator=separator,
    )
    sources = {}
    for pool, values in pools.items():
        options: dict[str, Any] = {
            **{"description": description, "label_kind": columns.kind, "where": partial(where, pool)},
            **{"fingerprint": (fingerprints or {}).get(pool), "columns": columns.used},
        }
        if columns.image is None:
            options |= {"modality": "text", "read": as_is}
            inputs: Sequence[Any] = _texts(values, columns, pool, where)
        elif columns.text is None:
            options |= {"modality": "image", "read": read_image, "augment": "crop"}
            inputs = images[pool]
        else:
            groups = labels[pool] if columns.kind == "pair" else pictures[pool]
            options |= {"modality": "image-text", "read": read_image_text, "groups": groups}
            inputs = Zipped(images[pool], _texts(values, columns, pool, where))
        sources[pool] = Source(inputs, labels[pool], known, **options)
    return sources


def _labels(values: Mapping[str, Sequence[Any]], columns: Columns, pictures: Sequence[Any] | None) -> Sequence[Any]:
    if columns.kind == "none":
        return next(iter(values.values()))  # one for each row; what they are does not matter
    if columns.label is not None:
        return values[columns.label]
    assert pictures is not None  # kind "pair": rows with the same picture
    return pictures


class Zipped(Sequence[tuple[Any, str]]):
    """Pairs (image, text) of two columns, of which the first may be read one item at a time."""

    def __init__(self, images: Sequence[Any], texts: Sequence[str]) -> None:
        self.images = images
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> Any:
        return self.images[index], self.texts[index]


def check_columns(wanted: Iterable[str], available: Iterable[str], what: str) -> None:
    """Raise a `DataError` that lists the columns unless every wanted one is there."""
    available = list(available)
    for name in wanted:
        if name not in available:
            raise DataError(
                f"{what} has no column {name!r} ({closest(name, available)}); "
                f"its columns: {', '.join(map(str, available)) or 'none'}"
            )


def _texts(values: Mapping[str, Sequence[Any]], columns: Columns, pool: str, where: Where) -> list[Any]:
    names = [name for name in (columns.text, columns.text_pair) if name is not None]
    found = []
    for name in names:
        for i, text in enumerate(values[name]):
            if not isinstance(text, str) and text is not None:
                raise DataError(f"{where(pool, i)}: column {name!r} holds {type(text).__name__}, not text")
        found.append(["" if text is None else text for text in values[name]])  # as CSV has it
    return found[0] if len(found) == 1 else list(zip(*found, strict=True))


def _identities(images: Sequence[Any]) -> list[Any]:
    """What tells one picture from another: its path, or a digest of its bytes where a library stores those."""
    return [
        sha256(item["bytes"]).digest()
        if isinstance(item, dict) and item.get("bytes") is not None
        # Two spellings of one path are one picture.
        else os.path.normpath(item["path"] if isinstance(item, dict) else item)
        for item in images
    ]


def _images(values: Sequence[Any], root: Path | None, pool: str, where: Where) -> Sequence[Any]:
    if root is None:
        return values  # the library's own image column: bytes or paths, read one at a time
    paths = []
    for i, value in enumerate(values):
        if not isinstance(value, str) or not value:
            raise DataError(f"{where(pool, i)}: the image column holds {reprlib.repr(value)}, not a path")
        paths.append(root / value)  # an absolute path stays what it is
    return paths
