"""From columns of texts or images and labels to sources; what tables and HuggingFace data sets share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpd_plugins.data.images import check_images, read_image
from mdpd_plugins.data.labels import Where, check_label_kind, encode_pools
from mdpd_plugins.data.source import Source, as_is
from mdpd_plugins.registry import ConfigError, DataError, closest


@dataclass(frozen=True)
class Columns:
    """Names of the columns: labels, and either texts (with an optional second text) or images."""

    label: str
    text: str | None = None
    text_pair: str | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            given = "both" if self.text is not None else "neither"
            raise ConfigError(f"name either text_column or image_column in the data configuration, not {given}")
        if self.text_pair is not None and self.text is None:
            raise ConfigError("text_pair_column needs text_column, the first text of each pair")

    @property
    def names(self) -> tuple[str, ...]:
        """Every column that is read."""
        return tuple(c for c in (self.text, self.text_pair, self.image, self.label) if c is not None)


def open_columns(
    pools: Mapping[str, Mapping[str, Sequence[Any]]],
    columns: Columns,
    *,
    kind: str,
    classes: Iterable[str] | None,
    separator: str | None,
    where: Where,
    image_roots: Mapping[str, Path],
    verify: bool,
    description: str,
) -> dict[str, Source]:
    """Make one source of each pool's columns (pool name -> column name -> values).

    Raises:
        ConfigError, DataError: as `encode_pools`, and for inputs that are empty or are no text or image.
    """
    labels, known = encode_pools(
        {pool: values[columns.label] for pool, values in pools.items()},
        kind=check_label_kind(kind),
        classes=classes,
        where=where,
        separator=separator,
    )
    sources = {}
    for pool, values in pools.items():
        options: dict[str, Any] = {"description": description, "label_kind": kind}
        if columns.image is not None:
            inputs = _images(values[columns.image], image_roots.get(pool), pool, where)
            if verify:
                check_images(item for item in inputs if isinstance(item, Path))
            sources[pool] = Source(
                inputs, labels[pool], known, "image", read=read_image, augment="crop+flip", **options
            )
        else:
            texts = _texts(values, columns, pool, where)
            sources[pool] = Source(texts, labels[pool], known, "text", read=as_is, **options)
    return sources


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
    for name in names:
        for i, text in enumerate(values[name]):
            if not isinstance(text, str):
                raise DataError(f"{where(pool, i)}: column {name!r} holds {type(text).__name__}, not text")
    if len(names) == 1:
        return list(values[names[0]])
    return list(zip(values[names[0]], values[names[1]], strict=True))


def _images(values: Sequence[Any], root: Path | None, pool: str, where: Where) -> Sequence[Any]:
    if root is None:
        return values  # the library's own image column: bytes or paths, read one at a time
    paths = []
    for i, value in enumerate(values):
        if not isinstance(value, str) or not value:
            raise DataError(f"{where(pool, i)}: the image column holds {value!r}, not a path")
        paths.append(root / value)  # an absolute path stays what it is
    return paths
