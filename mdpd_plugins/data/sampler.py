"""The order of training batches: a pure function of the seed, so that it survives a resume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from mdpd_plugins.registry import ConfigError


class EpochBatchSampler(Sampler[list[int]]):
    """Endless batches of virtual indices for `LabelledDataset`, epoch after epoch.

    Each epoch goes through the data once, in an order drawn from (seed, epoch); its last batch may be
    smaller. Batch k of the stream depends on (seed, k) alone. The stream never ends: use an iteration-based
    loop.

    In a mmengine configuration::

        train_dataloader = dict(
            dataset=..., batch_size=32, num_workers=2, collate_fn=...,
            sampler=dict(type="DefaultSampler", shuffle=True),
            batch_sampler=dict(type="EpochBatchSampler"),  # drop_last goes in here, too
        )

    With several processes the batch of all ranks together has `batch_size * world_size` examples and equals
    the batch of one process with that batch size; each rank takes a contiguous stretch of it. Shares of a
    smaller last batch may differ by one. If it has fewer examples than there are ranks, ranks without a share
    of their own repeat one of its examples, because a rank without a batch would leave the others waiting.

    Args:
        sampler: mmengine's sampler; gives the data set, the seed and whether to shuffle. Its own order is not
            used.
        batch_size: examples a batch and process.
        seed: instead of the sampler's seed.
        drop_last: leave out an epoch's smaller last batch.

    Raises:
        ConfigError: a data set that does not know virtual indices, an empty one, or none left by `drop_last`.
    """

    def __init__(self, sampler: Any, batch_size: int, seed: int | None = None, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.rank, self.world_size = get_dist_info()
        self.global_batch = batch_size * self.world_size
        self.seed = int(sampler.seed if seed is None else seed)
        self.shuffle = bool(getattr(sampler, "shuffle", True))
        self.stride = getattr(sampler.dataset, "epoch_stride", None)
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be positive")
        if self.stride is None:
            raise ConfigError(
                f"EpochBatchSampler serves LabelledDataset, not {type(sampler.dataset).__name__}; "
                "wrap the data in a LabelledDataset or remove batch_sampler from the loader"
            )
        # The two differ where mmengine's num_batch_per_epoch shortens the data set.
        self.length = min(len(sampler.dataset), self.stride)
        whole, rest = divmod(self.length, self.global_batch)
        self.batches_per_epoch = whole if drop_last or not rest else whole + 1
        if not self.batches_per_epoch:
            raise ConfigError(
                f"{self.length} training examples make no batch of {self.global_batch}; "
                "lower batch_size, set drop_last=False or bring more data"
            )
        self.start = 0

    def start_at(self, batch: int) -> None:
        """Let the next iterator begin at this batch of the stream: a resume without reading what went by."""
        self.start = batch

    def __len__(self) -> int:
        """Batches per epoch, although iteration goes on: that is how mmengine measures an epoch."""
        return self.batches_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        epoch, batch = divmod(self.start, self.batches_per_epoch)
        while True:
            order = self.epoch_order(epoch)
            for number in range(batch, self.batches_per_epoch):
                together = order[number * self.global_batch : (number + 1) * self.global_batch]
                yield [epoch * self.stride + int(i) for i in self._share(together)]
            epoch, batch = epoch + 1, 0

    def epoch_order(self, epoch: int) -> np.ndarray:
        """The plain indices of one epoch, int64 (length,)."""
        if not self.shuffle:
            return np.arange(self.length)
        return np.random.default_rng((self.seed, epoch)).permutation(self.length)

    def _share(self, together: np.ndarray) -> np.ndarray:
        count = len(together)
        mine = together[self.rank * count // self.world_size : (self.rank + 1) * count // self.world_size]
        return mine if len(mine) else together[[self.rank % count]]
