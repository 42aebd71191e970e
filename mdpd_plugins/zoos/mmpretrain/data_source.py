"""Source type `mmpretrain`: any classification data set class of MMPretrain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mdpd_plugins.data.images import read_image
from mdpd_plugins.data.labels import encode_pools
from mdpd_plugins.data.source import LabelKind, Source
from mdpd_plugins.registry import ConfigError, DataError, MissingDependencyError, closest


def open_mmpretrain(
    *,
    dataset: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    val: Mapping[str, Any] | None = None,
    test: Mapping[str, Any] | None = None,
    classes: Iterable[str] | None = None,
    description: str | None = None,
) -> dict[str, Source]:
    """Open data sets that MMPretrain's registry builds.

    Args:
        dataset: configuration of one data set that is to be split, as MMPretrain's users write it:
            `dict(type="CustomDataset", data_root=...)`. A `pipeline` in it is not used: pictures are prepared
            as the backbone wants them.
        train, val, test: instead of `dataset`, one configuration per split.
        classes: class names in index order, for data sets that do not know theirs.
        description: what the data is, its licence and origin, for the model card.

    Returns:
        Pool name -> source; multi-label where the data set's `gt_label` is a list.

    Raises:
        MissingDependencyError: MMPretrain is not installed.
        ConfigError: a wrong configuration, an unknown data set type.
        DataError: the data set cannot be built, or is not for image classification.
    """
    if (dataset is None) == (train is None):
        raise ConfigError("data type 'mmpretrain' needs either dataset= (to be split) or train= (with val=, test=)")
    configs = {"train": dataset or train, "val": val, "test": test}
    built = {pool: _build(dict(config), pool) for pool, config in configs.items() if config is not None}
    infos = {pool: [_info(data, i, pool) for i in range(len(data))] for pool, data in built.items()}
    for pool, rows in infos.items():
        if not rows:
            raise DataError(f"the {pool} data set of MMPretrain ({type(built[pool]).__name__}) is empty")
    known = classes if classes is not None else built["train"].metainfo.get("classes")
    kind: LabelKind = "multi" if isinstance(infos["train"][0]["gt_label"], (list, tuple)) else "single"
    labels, names = encode_pools(
        {pool: [_named(row["gt_label"], known) for row in rows] for pool, rows in infos.items()},
        kind=kind,
        classes=known,
        where=lambda pool, i: f"MMPretrain data set {type(built[pool]).__name__} ({pool}), example {i}",
    )
    about = description or f"MMPretrain data set {type(built['train']).__name__}."
    return {
        pool: Source(
            [row.get("img", row.get("img_path")) for row in rows],
            labels[pool],
            names,
            "image",
            about,
            label_kind=kind,
            read=read_image,
            augment="crop",
        )
        for pool, rows in infos.items()
    }


def _build(config: dict[str, Any], pool: str) -> Any:
    try:
        from mmpretrain.registry import DATASETS
    except ImportError as error:
        raise MissingDependencyError(
            f"data type 'mmpretrain' needs MMPretrain ({error}); "
            "install it with: pip install 'mdpd-plugins[data,mmpretrain]'"
        ) from error
    DATASETS.import_from_location()
    kind = config.get("type")
    if isinstance(kind, str) and DATASETS.get(kind) is None:
        raise ConfigError(f"MMPretrain has no data set type {kind!r}: {closest(kind, DATASETS.module_dict)}")
    from mmengine.registry import DefaultScope

    try:
        # A run earlier in this process leaves mmengine's own scope behind, where these classes are unknown.
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            return DATASETS.build({**config, "pipeline": []})
    except Exception as error:  # whatever the data set class raises for its own files and arguments
        raise DataError(
            f"MMPretrain cannot build the {pool} data set {kind!r} ({type(error).__name__}: {error}); "
            "correct its configuration"
        ) from error


def _info(data: Any, index: int, pool: str) -> Mapping[str, Any]:
    info = data.get_data_info(index)
    label = info.get("gt_label")
    if label is None or not ("img" in info or "img_path" in info):
        raise DataError(
            f"MMPretrain data set {type(data).__name__} ({pool}) has no image with a class label in example "
            f"{index} (it has {', '.join(info)}); only image classification data sets fit here"
        )
    if isinstance(label, (np.ndarray, np.generic)):
        label = label.tolist()
    return {**info, "gt_label": label}


def _named(label: Any, classes: Sequence[str] | Iterable[str] | None) -> Any:
    """Class indices as names, since names may be digits themselves ("1" need not be class 1)."""
    if classes is None:
        return label
    names = list(classes)
    if isinstance(label, (list, tuple)):
        return [_named(one, names) for one in label]
    return names[label] if 0 <= label < len(names) else label
