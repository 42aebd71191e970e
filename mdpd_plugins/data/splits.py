"""Which examples are for training, validation and test: seeded, stratified, disjoint.

One stratified order of the training pool decides everything. Its head is the test set, what follows is the
validation set, the rest is for training; so a smaller `train_size` takes a part of what a larger one takes,
and leaves validation and test sets as they are. Where examples form groups (several questions about one
picture), the order is one of groups, and a split begins with a group: what is left of the group before is used
by neither split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from mdpd_plugins.data.source import Label, Source
from mdpd_plugins.registry import ConfigError, DataError, closest

SPLITS = ("train", "val", "test")
REST = "rest"
"""The split of what no other split takes."""
DEFAULT_VAL_SHARE = 0.1
DEFAULT_TEST_SHARE = 0.2


@dataclass(frozen=True)
class Sizes:
    """How much of the data each split takes: a count (int), a share of its pool (float), or None.

    None means: everything, for "train" and for splits that the data brings along. A split that the data does
    not bring is cut from the training pool: 10 % for "val", and 20 % for "test" if there is neither; a test
    set beside an existing validation set is cut only when `test_size` asks for it. 0 means no such split.
    """

    train_size: int | float | None = None
    val_size: int | float | None = None
    test_size: int | float | None = None
    split_seed: int = 0

    def __post_init__(self) -> None:
        for key in ("train_size", "val_size", "test_size"):
            size = getattr(self, key)
            if size is not None and not _is_size(size):
                raise ConfigError(f"{key}={size!r}: give a whole number of examples, or a share between 0 and 1")
        if not isinstance(self.split_seed, Integral) or isinstance(self.split_seed, bool) or self.split_seed < 0:
            raise ConfigError(f"split_seed={self.split_seed!r}: give a whole number, 0 or more")


def select_split(pools: Mapping[str, Source], split: str, sizes: Sizes) -> Source:
    """The examples of one split.

    Args:
        pools: what the data brings along: "train", and perhaps "val" and "test".
        split: "train", "val" or "test"; or `REST`: what `train_size` leaves of the training pool.
        sizes: how much to take, and the seed of the order.

    Raises:
        ConfigError: an unknown split, or sizes that the data cannot fill.
        DataError: a pool without examples, or no such split.
    """
    if split not in (*SPLITS, REST):
        raise ConfigError(f"split {split!r} does not exist: {closest(split, SPLITS)}")
    for name, pool in pools.items():
        if not len(pool):
            raise DataError(f"the {name} data is empty: {pool.description}")
    if split not in ("train", REST) and split in pools:
        wanted = getattr(sizes, f"{split}_size")
        return _take(pools[split], _order(pools[split], sizes), 0, wanted, f"{split}_size")
    pool, order = pools["train"], _order(pools["train"], sizes)
    test = 0 if "test" in pools else _count(_test_size(pools, sizes), len(pool))
    val = 0 if "val" in pools else _count(_val_size(sizes), len(pool))
    if test + val >= len(pool):
        raise ConfigError(
            f"test_size ({test}) and val_size ({val}) leave nothing of {len(pool)} examples to train on; lower them"
        )
    val_start = _start_of_group(pool, order, test)
    if split in ("train", REST):
        start = _start_of_group(pool, order, val_start + val)
        if split == REST:
            return _rest(pool, order, start, sizes)
        return _take(pool, order, start, sizes.train_size, "train_size")
    start, count = (0, test) if split == "test" else (val_start, val)
    if not count:
        raise DataError(
            f"there is no {split} data: give {split}_size to cut some from the training data "
            f"({len(pool)} examples), or bring a {split} split along"
        )
    return _take(pool, order, start, count, f"{split}_size")


def stratified_order(labels: Sequence[Label], seed: int, stratify: bool = True) -> list[int]:
    """An order of all indices in which every stretch holds the classes in nearly their overall shares.

    The r-th of the n members of a class stands at (r + 1/2) / n of the way; within a class, and where classes
    meet, chance decides. Any prefix therefore holds each class's share to within one example.

    Args:
        labels: class indices (ignored where `stratify` is false: plain random order).
        seed: seed of the order.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    if not stratify:
        return shuffled.tolist()
    ids = np.asarray(labels, dtype=np.int64)[shuffled]
    place = np.empty(len(ids))
    for member in np.unique(ids):
        here = ids == member
        count = int(here.sum())
        place[here] = (np.arange(count) + 0.5) / count
    return shuffled[np.argsort(place, kind="stable")].tolist()


def _order(pool: Source, sizes: Sizes) -> list[int]:
    if pool.groups is not None:
        groups = np.asarray(pool.groups)
        rank = np.random.default_rng(int(sizes.split_seed)).permutation(groups.max() + 1)
        return np.argsort(rank[groups], kind="stable").tolist()
    return stratified_order(pool.labels, int(sizes.split_seed), stratify=pool.label_kind == "single")


def _start_of_group(pool: Source, order: Sequence[int], position: int) -> int:
    """The first position from `position` on at which a group begins."""
    while pool.groups is not None and 0 < position < len(order):
        if pool.groups[order[position]] != pool.groups[order[position - 1]]:
            break
        position += 1
    return position


def _take(pool: Source, order: Sequence[int], start: int, size: float | None, key: str) -> Source:
    available = len(order) - start
    count = available if size is None else _count(size, len(order))
    if key == "train_size" and isinstance(size, Real) and not isinstance(size, Integral):
        count = _count(size, available)  # a share of what is left to train on: 1.0 is all of it
    if count > available:
        raise ConfigError(f"{key}={size}, but there are {available} examples to take them from; lower it")
    if not count:
        raise ConfigError(f"{key}={size} takes nothing of {available} examples; raise it, or leave it out")
    return pool.subset(sorted(order[start : start + count]))  # in file order: kinder to the disk


def _rest(pool: Source, order: Sequence[int], start: int, sizes: Sizes) -> Source:
    train = _take(pool, order, start, sizes.train_size, "train_size")
    after = _start_of_group(pool, order, start + len(train))
    if after >= len(order):
        raise ConfigError(
            f"train_size={sizes.train_size} takes all {len(train)} examples that are left to train on, so there is no "
            f"rest: lower train_size, or bring other data without labels"
        )
    return _take(pool, order, after, None, "rest")


def _test_size(pools: Mapping[str, Source], sizes: Sizes) -> int | float:
    if sizes.test_size is not None:
        return sizes.test_size
    return 0 if "val" in pools else DEFAULT_TEST_SHARE


def _val_size(sizes: Sizes) -> int | float:
    return DEFAULT_VAL_SHARE if sizes.val_size is None else sizes.val_size


def _count(size: float, total: int) -> int:
    return int(size) if isinstance(size, Integral) else round(float(size) * total)


def _is_size(size: Any) -> bool:
    if isinstance(size, bool) or not isinstance(size, Real):
        return False
    return float(size) >= 0 if isinstance(size, Integral) else 0 <= float(size) <= 1
