"""A source as a torch data set whose samples depend on (seed, epoch, index) and on nothing else."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from mdpd_plugins.data.source import Label, Source
from mdpd_plugins.data.transforms import Transform


class LabelledDataset(Dataset[tuple[Any, torch.Tensor]]):
    """Examples with their label as a tensor.

    Indices are virtual: index v stands for example `v % len` in epoch `v // len`, and the augmentation is seeded
    by (seed, epoch, example). So a sample does not depend on worker processes or on the state of any global
    generator, and a resumed run sees what an uninterrupted one sees. Plain indices are those of epoch 0.

    `dataset[v]` is `(input, label)`: the input a `PIL.Image`, `str`, `(str, str)` or `(PIL.Image, str)`; the
    label an int64 scalar ("single", "pair", "none"), float32 (C,) of zeros and ones ("multi"), or a float32 scalar
    ("float").

    Args:
        source: the examples.
        transform: augmentation, used in training only; see `make_transform`.
        seed: seed of the augmentation.
        train: without it, examples come as they are.
        views: how many different views of an example there are: itself, and augmented ones; epoch e has view
            e % views. 0: another one in every epoch.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform | None = None,
        seed: int = 0,
        train: bool = False,
        views: int = 0,
    ) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed
        self.train = train
        self.views = views

    @property
    def metainfo(self) -> dict[str, Any]:
        """What evaluation needs to know about the data (mmengine's name for it)."""
        return {
            "classes": self.source.classes,
            "label_kind": self.source.label_kind,
            "modality": self.source.modality,
            "description": self.source.description,
        }

    @property
    def epoch_stride(self) -> int:
        """How far the virtual indices of one example lie apart from epoch to epoch."""
        return len(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        epoch, example = divmod(int(index), len(self.source))
        if epoch < 0 or (epoch and not self.train):
            raise IndexError(f"index {index} is outside a data set of {len(self.source)} examples")
        item, label = self.source[example]
        view = epoch % self.views if self.views else epoch
        as_it_is = self.views > 0 and view == 0
        if self.train and self.transform is not None and not as_it_is:
            item = self.transform(item, np.random.default_rng((self.seed, view, example)))
        return item, self._label(label)

    def blank(self) -> torch.Tensor:
        """A label of zeros, for an input that has none."""
        return torch.zeros_like(self._label(self.source.labels[0]))

    def _label(self, label: Label) -> torch.Tensor:
        if self.source.label_kind in ("single", "pair", "none"):
            return torch.tensor(label, dtype=torch.int64)
        if self.source.label_kind == "float":
            return torch.tensor(label, dtype=torch.float32)
        row = torch.zeros(len(self.source.classes))
        row[cast("list[int]", label)] = 1.0
        return row


class NumberedDataset(Dataset[tuple[Any, int]]):
    """`dataset[v]` is (what a `LabelledDataset` gives there, which example and view that is).

    The number is the same in each epoch that has the same view.

    Args:
        views: how many views of an example there are, as the data set has it.
    """

    def __init__(self, dataset: LabelledDataset, views: int = 1):
        self.dataset, self.views = dataset, views
        self.metainfo = dataset.metainfo
        self.epoch_stride = dataset.epoch_stride

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.dataset[index], int(index) % self.count

    @property
    def count(self) -> int:
        """Different numbers: examples times views."""
        return len(self.dataset) * self.views

    def all_views(self) -> Subset:
        """Every view of every example, once."""
        return Subset(self, range(self.count))
