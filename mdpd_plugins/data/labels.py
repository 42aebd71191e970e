"""Raw labels (names, numbers, lists) to class indices, with errors that say which row is wrong."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast, get_args

from mdpd_plugins.data.source import Label, LabelKind
from mdpd_plugins.registry import ConfigError, DataError, closest

Where = Callable[[str, int], str]
"""(pool, index) -> words that lead the reader to the example, such as "reviews.csv, line 12"."""


def check_label_kind(kind: str) -> LabelKind:
    """`kind` itself, or a `ConfigError` that lists the kinds there are."""
    if kind not in get_args(LabelKind):
        raise ConfigError(f"label_kind={kind!r} is not a kind of label: {closest(kind, get_args(LabelKind))}")
    return cast(LabelKind, kind)


def encode_pools(
    raw: Mapping[str, Sequence[Any]],
    *,
    kind: LabelKind,
    classes: Iterable[str] | None,
    where: Where,
    separator: str | None = None,
) -> tuple[dict[str, list[Label]], tuple[str, ...]]:
    """Encode the raw labels of every pool (a part of a data set: "train", perhaps "val" and "test").

    Without `classes`, the classes are what the training pool holds, in alphabetical order (in numerical order
    where every one is an integer). A label of another pool that training never saw is then an error.

    Args:
        raw: pool name -> raw labels; "train" is among them.
        kind: "single" (a name or an index), "multi" (a list of them, or a string cut at `separator`), "float",
            "pair" (whatever identifies an item: equal values get the same number, over all pools), or "none".
        classes: class names in index order, or None to find them.
        where: names an example in error messages.
        separator: what stands between the labels of one multi-label string.

    Returns:
        The encoded labels per pool and the class names (empty for "float", "pair" and "none").

    Raises:
        ConfigError: `classes` holds one name twice, or fewer than two classes come out.
        DataError: an empty label, a number that is not finite, a label outside the classes, or several labels as marks
            for each class or as a list that was written as text.
    """
    if kind == "float":
        found = {pool: [_number(v, where(pool, i)) for i, v in enumerate(vs)] for pool, vs in raw.items()}
        return cast("dict[str, list[Label]]", found), ()
    if kind == "none":
        return {pool: [0] * len(values) for pool, values in raw.items()}, ()
    if kind == "pair":
        return cast("dict[str, list[Label]]", number_items(raw)), ()
    if kind == "multi":
        _check_no_marks(raw, where)
    names = {
        pool: [_names(value, kind, separator, where(pool, i)) for i, value in enumerate(values)]
        for pool, values in raw.items()
    }
    known = _known_classes(names["train"], classes)
    index = {name: i for i, name in enumerate(known)}
    # An integer may stand for the class of that index, but not where class names are numbers themselves ("2.0", which
    # tables make of 2 where a cell is empty): there it would silently mean something else.
    by_index = not any(_is_number(name) for name in known)
    encoded: dict[str, list[Label]] = {}
    for pool, rows in names.items():
        encoded[pool] = []
        for i, row in enumerate(rows):
            found_ids = [_class_index(name, index, by_index, where(pool, i)) for name in row]
            encoded[pool].append(found_ids[0] if kind == "single" else sorted(set(found_ids)))
    return encoded, known


def number_items(raw: Mapping[str, Sequence[Any]]) -> dict[str, list[int]]:
    """Pool name -> numbers: equal values have the same number over all pools, in order of first appearance."""
    numbers: dict[Any, int] = {}
    return {pool: [numbers.setdefault(value, len(numbers)) for value in values] for pool, values in raw.items()}


def _known_classes(rows: Sequence[Sequence[str]], classes: Iterable[str] | None) -> tuple[str, ...]:
    if classes is not None:
        known = tuple(_name(c) for c in classes)
        twice = sorted({c for c in known if known.count(c) > 1})
        if twice:
            raise ConfigError(f"classes names {', '.join(map(repr, twice))} more than once; keep one of each")
    else:
        seen = {name for row in rows for name in row}
        # "1" and "01" are two names of one number: without the second key their order would be the set's, which
        # changes from process to process.
        known = tuple(sorted(seen, key=lambda name: (int(name), name)) if all(map(_is_integer, seen)) else sorted(seen))
    if len(known) < 2:
        raise ConfigError(
            f"classification needs at least two classes, but there is {', '.join(known) or 'none'}; "
            "check the label column, or set label_kind='float' if the labels are numbers to predict"
        )
    return known


def _class_index(name: str, index: Mapping[str, int], by_index: bool, where: str) -> int:
    if name in index:
        return index[name]
    if by_index and name.isdecimal() and int(name) < len(index):
        return int(name)
    raise DataError(
        f"{where}: label {name!r} is not one of the {len(index)} classes ({closest(name, index)}). "
        "Correct the label, or give the complete list as classes=[...]"
    )


def _names(value: Any, kind: LabelKind, separator: str | None, where: str) -> list[str]:
    is_list = _listed(value)
    if kind == "single":
        if is_list:
            raise DataError(f"{where}: the label is a list ({value!r}); set label_kind='multi'")
        name = _name(value)
        if not name:
            raise DataError(f"{where}: the label is empty; fill it in or remove the row")
        return [name]
    parts: list[Any]
    if is_list:
        parts = list(value)
    elif isinstance(value, str) and value.strip()[:1] == "[" and value.strip()[-1:] == "]":
        raise DataError(
            f"{where}: the labels {value!r} are a list that was written as text: write them with {separator or '|'!r} "
            f"between them, or save the table as JSON Lines or parquet, which keep lists"
        )
    elif isinstance(value, str):
        parts = value.split(separator) if separator else [value]
    else:
        parts = [] if value is None else [value]
    return [name for name in map(_name, parts) if name]


def _check_no_marks(raw: Mapping[str, Sequence[Any]], where: Where) -> None:
    """Refuse lists that have a zero or a one for each class: read as lists of class indices they would mean others."""
    rows = [(pool, i, list(value)) for pool, values in raw.items() for i, value in enumerate(values) if _listed(value)]
    # A label that a list has twice shows that these are marks and no labels.
    if len({len(row) for _, _, row in rows}) != 1 or not all(mark in (0, 1) for _, _, row in rows for mark in row):
        return
    for pool, i, row in rows:
        if len(row) > len(set(row)):
            raise DataError(
                f"{where(pool, i)}: the labels {row} are a 0 or a 1 for each class: give the names of the classes that "
                f"are marked instead, or their indices, counted from 0"
            )


def _listed(value: Any) -> bool:
    return not isinstance(value, str) and hasattr(value, "__iter__")


def _name(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # how tables say that a cell is empty
        return ""
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value).is_integer():
        return str(int(float(value)))  # 1.0 and numpy's 1 mean class "1"
    return str(value).strip()


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: label {value!r} is not a finite number, as label_kind='float' needs")
    return number


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _is_number(name: str) -> bool:
    return _is_integer(name) or (name.count(".") == 1 and _is_integer(name.replace(".", "")))
