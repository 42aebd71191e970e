"""Samples with their number, for what is kept by sample from epoch to epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from mdpd_plugins.data.collate import Batch
from mdpd_plugins.data.dataset import LabelledDataset


class NumberedDataset(Dataset[tuple[Any, int]]):
    """`dataset[v]` is (what a `LabelledDataset` gives there, which example that is), the same number in each epoch."""

    def __init__(self, dataset: LabelledDataset):
        self.dataset = dataset
        self.metainfo = dataset.metainfo
        self.epoch_stride = dataset.epoch_stride

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.dataset[index], int(index) % len(self.dataset)


class NumberedCollate:
    """A collate function whose batches have the samples' numbers as "samples", int64 (B,)."""

    def __init__(self, collate: Callable[[Sequence[Any]], Batch]):
        self.collate = collate

    def __call__(self, samples: Sequence[tuple[Any, int]]) -> Batch:
        return {**self.collate([s for s, _ in samples]), "samples": torch.tensor([number for _, number in samples])}


__all__ = ["NumberedCollate", "NumberedDataset"]
