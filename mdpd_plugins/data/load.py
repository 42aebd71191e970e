"""`load_source`: a data configuration and a split -> a source."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mdpd_plugins.data.source import READS, Source
from mdpd_plugins.data.splits import REST, Sizes, select_split
from mdpd_plugins.data.unusable import without_unusable
from mdpd_plugins.registry import ConfigError, closest, load_catalogue

_SIZES = tuple(field.name for field in fields(Sizes))
_COMMON = (*_SIZES, "verify", "on_broken")


def load_source(cfg: Mapping[str, Any], split: str) -> Source:
    """Open the data that `cfg` describes and take one split of it.

    Args:
        cfg: `type`, one that a plugin registers (`load_catalogue().sources`), the keys of that type (the arguments of
            its `open` function), and optionally `train_size`, `val_size`, `test_size`
            (a count or a share), `split_seed`, and `verify` and `on_broken` (see
            `mdpd_plugins.data.unusable.without_unusable`).
        split: "train", "val" or "test". Splits of one configuration are disjoint, and the same every time.

    Raises:
        ConfigError: an unknown type, key, split or size.
        DataError: data that is missing, empty, or does not fit the configuration; examples that cannot be used, all of
            them named.
        MissingDependencyError: a package that the data needs is not installed.
    """
    options = dict(cfg)
    kind = options.pop("type", None)
    catalogue = load_catalogue()
    if kind is None:
        raise ConfigError(f"the data configuration has no type; choose one of {', '.join(catalogue.sources)}")
    if not isinstance(kind, str):
        raise ConfigError(f"data type {kind!r} is no name; choose one of {', '.join(catalogue.sources)}")
    opener = catalogue.source(kind).load_open()
    sizes = Sizes(**{key: options.pop(key) for key in _SIZES if key in options})
    checks = {key: options.pop(key) for key in _COMMON if key in options}
    # The packaged data sets have options of their own, which open_packaged checks itself.
    check_keys(opener, options, f"data type {kind!r}", also=_COMMON)
    return select_split(without_unusable(opener(**options), **checks), split, sizes)


def load_unlabelled(cfg: Mapping[str, Any], data: Mapping[str, Any], like: Source) -> Source:
    """Open inputs without labels, to be learned from beside labelled data.

    Args:
        cfg: `type`: any type of data, whose labels are then ignored (a table needs none: label_kind="none"), with its
            keys; "images" (a folder), "texts" (a text file); or "rest": what data's `train_size` leaves. `size`: how
            many are taken, by default all.
        data: the labelled data's own configuration. like: its training examples.

    Raises:
        ConfigError, DataError, MissingDependencyError: as `load_source`; or inputs of another modality.
    """
    options = dict(cfg)
    size = options.pop("size", None)
    sizes: dict[str, Any] = {"split_seed": options.pop("split_seed", 0)}
    if size is not None:
        sizes["train_size"] = size
    if options.get("type") == REST:
        if extra := sorted(set(options) - {"type"}):
            raise ConfigError(f"data.unlabelled has type 'rest', which takes no key {extra[0]!r} besides size")
        source = load_source(data, REST).without_labels()
        pools = {"train": source}
    else:
        own = {key: options.pop(key) for key in _SIZES if key in options}
        if own:
            raise ConfigError(f"data.unlabelled takes no {next(iter(own))}: give size, how many are taken")
        if options.get("type") == "table":
            options.setdefault("label_kind", "none")
        whole = load_source({"val_size": 0, "test_size": 0, **options}, "train")
        pools = {"train": whole.without_labels()}
    chosen = select_split(pools, "train", Sizes(val_size=0, test_size=0, **sizes))
    if chosen.modality != like.modality:
        raise ConfigError(
            f"data.unlabelled holds {READS[chosen.modality]}, but data.source holds {READS[like.modality]}: bring "
            f"inputs of the same kind"
        )
    return chosen


def check_keys(function: Any, options: Mapping[str, Any], what: str, also: tuple[str, ...] = ()) -> None:
    """Compare a configuration with the keyword arguments of the function that will take it.

    Raises:
        ConfigError: names a key that `function` does not take, or one that it needs and does not get.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        known = set(options)
    else:
        known = {p.name for p in parameters}
    for key in options:
        if key not in known:
            raise ConfigError(f"{what} has no key {key!r}: {closest(key, sorted({*known, *also}))}")
    for parameter in parameters:
        required = parameter.default is parameter.empty and parameter.kind is parameter.KEYWORD_ONLY
        if required and parameter.name not in options:
            raise ConfigError(f"{what} needs the key {parameter.name!r}; add it to the data configuration")
