"""Labelled and unlabelled examples together, each with a coach's outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from mdpd_plugins.data.collate import Batch
from mdpd_plugins.data.dataset import LabelledDataset

TaughtSample = tuple[tuple[Any, torch.Tensor], torch.Tensor, bool]


class TaughtDataset(Dataset[TaughtSample]):
    """`dataset[v]` is (what a `LabelledDataset` gives, the coach's outputs (C,), whether the label means anything).

    Examples of `labelled` come first, `repeats` times, each time another view where they are augmented; then those of
    `unlabelled`, with a label of zeros. Indices are virtual, as those of `LabelledDataset` are.

    Args:
        outputs: (N, C) float, of all examples in that order, each once.
    """

    def __init__(
        self,
        labelled: LabelledDataset,
        unlabelled: LabelledDataset | None,
        outputs: torch.Tensor,
        repeats: int = 1,
    ):
        self.labelled, self.unlabelled, self.outputs, self.repeats = labelled, unlabelled, outputs, repeats
        self.metainfo = labelled.metainfo
        self.epoch_stride = len(self)
        assert len(outputs) == len(labelled) + self._unknown

    @property
    def _unknown(self) -> int:
        return 0 if self.unlabelled is None else len(self.unlabelled)

    def __len__(self) -> int:
        return self.repeats * len(self.labelled) + self._unknown

    def __getitem__(self, index: int) -> TaughtSample:
        epoch, number = divmod(int(index), len(self))
        known = len(self.labelled)
        if number < self.repeats * known:
            # Its epochs follow one another faster: each has another view.
            return self.labelled[epoch * self.repeats * known + number], self.outputs[number % known], True
        assert self.unlabelled is not None
        example = number - self.repeats * known
        item, _ = self.unlabelled[epoch * self._unknown + example]
        return (item, self.labelled.blank()), self.outputs[known + example], False


class TaughtCollate:
    """A collate function whose batches have "teacher", float (B, C), and "labelled", bool (B,), besides."""

    def __init__(self, collate: Callable[[Sequence[Any]], Batch]):
        self.collate = collate

    def __call__(self, samples: Sequence[TaughtSample]) -> Batch:
        outputs, known = torch.stack([s[1] for s in samples]), torch.tensor([s[2] for s in samples])
        return {**self.collate([s[0] for s in samples]), "teacher": outputs, "labelled": known}


__all__ = ["TaughtCollate", "TaughtDataset"]
