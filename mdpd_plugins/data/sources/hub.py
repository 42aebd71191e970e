"""Source type `huggingface`: data sets of the `datasets` library, from the hub or from a local path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mdpd_plugins.adapters.storage.weights import offline
from mdpd_plugins.data.labels import check_label_kind
from mdpd_plugins.data.source import Source
from mdpd_plugins.data.sources.columns import Columns, check_columns, open_columns
from mdpd_plugins.registry import ConfigError, DataError, MissingDependencyError, closest

PATIENCE = 5.0  # seconds for the hub to answer
_SPLIT_NAMES = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
_FORMATS = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
    ".arrow": ("arrow", {}),
}


def open_huggingface(
    *,
    path: str,
    label_column: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    image_column: str | None = None,
    name: str | None = None,
    revision: str | None = None,
    splits: Mapping[str, str] | None = None,
    label_kind: str = "single",
    label_separator: str | None = None,
    classes: Iterable[str] | None = None,
    description: str | None = None,
) -> dict[str, Source]:
    """Open a data set of the hub by name, or a local one, which never asks the network.

    Args:
        path: a name on the hub; or a local folder (written by `save_to_disk`, or one that `load_dataset`
            reads) or a local csv, tsv, json, jsonl, parquet or arrow file.
        label_column, text_column, text_pair_column, image_column: as in a table; the label column is "label"
            by default (none for `label_kind="pair"`). Class names come from the column's `ClassLabel` where there
            is one. Pictures with texts are read once when the data is opened, to tell which are the same.
        name: the configuration of a hub data set that has several ("sst2" of "glue").
        revision: the version on the hub (a tag or commit; name one to make a run repeatable).
        splits: "train", "val", "test" -> the data set's own names; by default train, validation, test.
        label_kind: "single", "multi", "float" or "pair", as in a table.
        label_separator: what separates several labels in one string (`label_kind="multi"`).
        classes: class names in index order, where the column does not know them.
        description: what the data is, its licence and origin; by default the data set's own words.

    Returns:
        Pool name -> source; texts are in memory, images are decoded one at a time.

    Raises:
        MissingDependencyError: `datasets` is not installed.
        DataError: the data is not available, or lacks the split or column.
        ConfigError: as for a table.
    """
    datasets = import_datasets()
    kind = check_label_kind(label_kind)
    if label_column is None and kind != "pair":
        label_column = "label"
    columns = Columns(label_column, text_column, text_pair_column, image_column, kind)
    if name is not None and Path(path).expanduser().exists():
        raise ConfigError(f"name={name!r} chooses a configuration on the hub, but {path} is local; leave it out")
    found = load_parts(datasets, path, name, revision)
    parts = {pool: found[own] for pool, own in _choose_splits(found, splits, path).items()}
    values: dict[str, dict[str, Sequence[Any]]] = {}
    for pool, part in parts.items():
        check_columns(columns.names, part.column_names, f"data set {path}, split {pool}")
        values[pool] = {}
        for column in columns.names:
            if column == columns.image:
                values[pool][column] = _image_column(datasets, part, column, path)
            elif column == columns.label:
                values[pool][column] = label_names(datasets, part.features[column], part[column][:])
            else:
                values[pool][column] = part[column][:]
    known = classes
    if known is None and columns.label is not None:
        known = _class_names(datasets, parts["train"].features[columns.label])
    return open_columns(
        values,
        columns,
        classes=known,
        separator=label_separator,
        where=lambda pool, i: f"data set {path}, split {pool}, row {i}",
        image_roots={},
        fingerprints=_fingerprints(parts, columns),
        description=description or _describe(path, name, revision, parts["train"]),
    )


def _fingerprints(parts: Mapping[str, Any], columns: Columns) -> dict[str, str]:
    # The library's own, of the data and of all that was done to it. A private name, but that is all there is.
    found = {pool: getattr(part, "_fingerprint", None) for pool, part in parts.items()}
    return {pool: f"datasets {print_} {columns.image}" for pool, print_ in found.items() if print_ and columns.image}


class _ImageColumn(Sequence[Any]):
    """The encoded images of a data set on disk, fetched one at a time."""

    def __init__(self, part: Any, column: str) -> None:
        self._part = part
        self._column = column

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: Any) -> Any:
        return self._part[index][self._column]


def import_datasets() -> Any:
    """The library `datasets`, or a `MissingDependencyError`."""
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(
            f"this data needs the package 'datasets' ({error}); install it with: pip install 'mdpd-plugins[data]'"
        ) from error
    return datasets


def load_parts(
    datasets: Any,
    path: str,
    name: str | None = None,
    revision: str | None = None,
    data_files: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Split name -> data set, from local files or, where there are none, from the library's cache or the hub.

    Args:
        path, name, revision: as `open_huggingface`. data_files: parquet files of each split, instead.

    Raises:
        DataError: it is not available; in one line, whatever went wrong in the library.
    """
    local = Path(path).expanduser()
    try:
        if data_files is not None:
            return dict(datasets.load_dataset("parquet", data_files=dict(data_files)))
        if local.is_file():
            if local.suffix.lower() not in _FORMATS:
                raise DataError(
                    f"{path}: local data sets end in {', '.join(_FORMATS)}, not {local.suffix!r}; "
                    f"{closest(local.suffix, _FORMATS)}"
                )
            builder, options = _FORMATS[local.suffix.lower()]
            return dict(datasets.load_dataset(builder, data_files={"train": str(local)}, **options))
        if local.is_dir():
            saved = any((local / file).exists() for file in ("dataset_dict.json", "state.json"))
            found = datasets.load_from_disk(str(local)) if saved else datasets.load_dataset(str(local))
            return dict(found) if isinstance(found, dict) else {"train": found}
        if path.startswith((".", "/", "~")) or local.suffix.lower() in _FORMATS:
            raise DataError(f"data set {path} does not exist on this machine; correct data path=")
        with _cache_only_if_unreachable(datasets, path):
            return dict(datasets.load_dataset(path, name, revision=revision))
    except DataError:
        raise
    except Exception as error:  # the library raises its own, its readers' and the network's errors
        where = "cannot be read" if local.exists() else "is not available from the hub"
        first = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"data set {path!r} {where} ({type(error).__name__}: {first}); check its name and "
            "the network, or give the path of a local copy"
        ) from error


@contextlib.contextmanager
def _cache_only_if_unreachable(datasets: Any, path: str) -> Iterator[None]:
    """Ask the hub once, for a few seconds. If it does not answer, the library would ask again for half a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    before = datasets.config.HF_HUB_OFFLINE
    try:
        if offline():
            raise OSError("told to stay offline")
        HfApi(endpoint=datasets.config.HF_ENDPOINT).dataset_info(path, timeout=PATIENCE)
    except HfHubHTTPError:
        pass  # it answers; what is wrong the library says better
    except Exception:  # no network, no answer in time, or told to stay offline
        datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _choose_splits(found: Mapping[str, Any], splits: Mapping[str, str] | None, path: str) -> dict[str, str]:
    if splits is not None:
        for pool, own in splits.items():
            if pool not in _SPLIT_NAMES:
                raise ConfigError(f"splits names {pool!r}: {closest(pool, _SPLIT_NAMES)}")
            if own not in found:
                raise DataError(f"data set {path} has no split {own!r} ({closest(own, found)})")
        chosen = dict(splits)
    else:
        chosen = {pool: own for pool, names in _SPLIT_NAMES.items() for own in names[::-1] if own in found}
    if "train" not in chosen:
        raise DataError(
            f"data set {path} has no train split, but {', '.join(found)}; "
            "say which to train on: splits={'train': ...}"
        )
    return chosen


def _class_label(datasets: Any, feature: Any) -> Any:
    inner = getattr(feature, "feature", feature)  # lists of labels wrap it
    return inner if isinstance(inner, datasets.ClassLabel) else None


def _class_names(datasets: Any, feature: Any) -> list[str] | None:
    label = _class_label(datasets, feature)
    return list(label.names) if label is not None else None


def label_names(datasets: Any, feature: Any, values: Sequence[Any]) -> Sequence[Any]:
    """Labels of a `ClassLabel` column by name; of other columns as they are."""
    label = _class_label(datasets, feature)
    if label is None:
        return values

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(v) for v in value]
        # Out of range (-1 marks unlabelled rows on the hub) stays as it is, and is refused as a label later.
        return label.names[value] if value is not None and 0 <= value < len(label.names) else value

    return [named(value) for value in values]


def _image_column(datasets: Any, part: Any, column: str, path: str) -> _ImageColumn:
    if not isinstance(part.features[column], datasets.Image):
        raise DataError(f"data set {path}: column {column!r} does not hold images but {part.features[column]}")
    undecoded = part.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return _ImageColumn(undecoded, column)


def _describe(path: str, name: str | None, revision: str | None, part: Any) -> str:
    local = Path(path).expanduser()
    where = f"local data set {local.name!r}" if local.exists() else f"HuggingFace data set {path}"
    words = [where + (f" ({name})" if name else "") + (f" at revision {revision}" if revision else "")]
    if part.info.license:
        words.append(f"licence: {part.info.license}")
    if part.info.description:
        words.append(part.info.description.strip().splitlines()[0])
    return "; ".join(words) + "."
