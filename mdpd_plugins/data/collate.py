"""Examples of `LabelledDataset` -> a batch as the backbone wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from mdpd_plugins.adapters.transform import Transform

Sample: TypeAlias = tuple[Any, torch.Tensor]
Batch: TypeAlias = dict[str, Any]


class Collate:
    """The collate function of a data loader.

    Called with samples (input, label tensor) it returns `{"inputs": {...}, "labels": tensor}`: the inputs as
    `transform` makes them, the labels int64 (B,), float32 (B, C) or float32 (B,).

    Args:
        transform: a backbone's `Adapter.transform()`.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        inputs = self.transform([example for example, _ in samples])
        return {"inputs": inputs, "labels": torch.stack([label for _, label in samples])}


class NumberedCollate:
    """A collate function whose batches have the samples' numbers as "samples", int64 (B,)."""

    def __init__(self, collate: Callable[[Sequence[Any]], Batch]):
        self.collate = collate

    def __call__(self, samples: Sequence[tuple[Any, int]]) -> Batch:
        return {**self.collate([s for s, _ in samples]), "samples": torch.tensor([number for _, number in samples])}
