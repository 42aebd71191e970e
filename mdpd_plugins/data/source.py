"""What a labelled data set looks like to everything else: a sequence of (input, label) with its classes.

Every source type (image folder, table, hub, MMPretrain, packaged) produces this one class; only the way its
`inputs` are found and read differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, overload

from mdpd_plugins.registry import DataError

LabelKind: TypeAlias = Literal["single", "multi", "float", "pair", "none"]
Modality: TypeAlias = Literal["image", "text", "image-text"]
Label: TypeAlias = int | list[int] | float
READS: dict[str, str] = {"image": "images", "text": "texts", "image-text": "images with texts"}
"""Modality -> what data of it is called in messages."""
Example: TypeAlias = tuple[Any, Label]


class Indexable(Protocol):
    """What inputs must be able to do: lists, arrays and lazy columns all can."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def as_is(value: Any) -> Any:
    """Reader of inputs that are already what the model side expects (texts and text pairs)."""
    return value


@dataclass(frozen=True, eq=False)
class Source(Sequence[Example]):
    """Labelled examples, read one at a time.

    `source[i]` is `(input, label)`. The input is a `PIL.Image` in RGB, a `str`, a `(str, str)` pair, or a
    `(PIL.Image, str)` pair (modality "image-text"). The label is a class index (`label_kind="single"`), a list
    of class indices (`"multi"`), a float (`"float"`, regression), the number of an item (`"pair"`,
    retrieval: a picture and a text belong together if their numbers are equal), or 0 that says nothing (`"none"`:
    inputs without labels). `classes` is empty for the last three.

    Attributes:
        inputs: raw inputs, indexable; may be lazy (paths, columns of a table on disk).
        labels: one label per input, all in memory.
        classes: class names in index order.
        modality: "image", "text" or "image-text".
        description: what the data is, its licence and where it came from; goes into the model card.
        label_kind: "single", "multi", "float", "pair" or "none".
        read: turns a raw input into the input of an example. A module-level function, so that a source can be
            sent to loader processes.
        augment: what may be done to the pictures when nobody asked for anything: "none", or else "crop"
            ("crop+flip" is taken for "crop": see `transforms.chosen_augment`).
        groups: one number per input, or None. Inputs of one group stay together when splits are cut: no
            picture has one of its questions in training and another in validation.
        metric: the metric by which this data is usually judged, where it is not its label kind's main one
            (Matthews correlation for CoLA).
        where: index -> words that lead to an example, such as "reviews.csv, line 12"; for messages. Loader processes do
            without.
        fingerprint: tells data whose pictures are not files of their own from other such data, so that checking them
            can be remembered; None where nothing does.
        columns: names of the columns that a table's inputs were read from ("text", "text_pair", "image" -> name); an
            export remembers them for tables to predict.
        left_out: how many examples were found unusable and left out (see `mdpd_plugins.data.unusable`).
    """

    inputs: Indexable
    labels: Sequence[Label]
    classes: tuple[str, ...]
    modality: Modality
    description: str
    label_kind: LabelKind = "single"
    read: Callable[[Any], Any] = as_is
    augment: str = "none"
    groups: Sequence[int] | None = None
    metric: str | None = None
    where: Callable[[int], str] | None = None
    fingerprint: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    left_out: int = 0

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise DataError(f"{len(self.inputs)} inputs but {len(self.labels)} labels in: {self.description}")
        if self.groups is not None and len(self.groups) != len(self.labels):
            raise DataError(f"{len(self.groups)} groups but {len(self.labels)} labels in: {self.description}")

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        return self.read(self.inputs[index]), self.labels[index]

    def __deepcopy__(self, memo: dict[int, Any]) -> Source:
        # Nothing in here changes, and mmengine deep-copies the loader's configuration with the data set in
        # it.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "where": None}  # it may be any function, and hold a whole table

    def subset(self, indices: Sequence[int]) -> Source:
        """The examples at `indices`, in that order, as a source of the same classes."""
        labels = [self.labels[i] for i in indices]
        groups = None if self.groups is None else [self.groups[i] for i in indices]
        found = self.where
        where = None if found is None else (lambda i: found(indices[i]))
        inputs = _Selection(self.inputs, indices)
        return replace(self, inputs=inputs, labels=labels, groups=groups, where=where, fingerprint=None)

    def without_labels(self) -> Source:
        """The same inputs, of label kind "none"."""
        return replace(self, labels=[0] * len(self), classes=(), label_kind="none", metric=None)

    def place(self, index: int) -> str:
        """Words that lead to an example."""
        return f"example {index}" if self.where is None else self.where(index)


class _Selection(Sequence[Any]):
    """A view on some items of a sequence; keeps lazy columns lazy."""

    def __init__(self, items: Indexable, indices: Sequence[int]) -> None:
        if isinstance(items, _Selection):  # views of views would get slower with every subset
            indices = [items._indices[i] for i in indices]
            items = items._items
        self._items: Indexable = items
        self._indices: Sequence[int] = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Selection(self._items, self._indices[index])
        return self._items[self._indices[index]]
