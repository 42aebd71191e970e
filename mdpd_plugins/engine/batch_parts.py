"""The part of a batch that this process has, where several processes split it, and the pieces it is worked off in.

Every loss is a mean. With several processes each could only average over its own part, and the parts differ: an
uneven last batch, texts of other lengths, other masks. Divided as below instead, the average of the processes'
gradients is the gradient of the whole batch's mean: what a single process computes. Alone, nothing changes.

The same holds for pieces of a part, whose gradients are added up: each is divided by what the whole is divided by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from mmengine.dist import all_gather, all_reduce, get_dist_info


@dataclass(frozen=True)
class BatchPart:
    """Samples `start` to `start + size` of a batch of `total`, which `processes` share."""

    start: int
    size: int
    total: int
    processes: int

    def pieces(self, size: int | None) -> Iterator[Piece]:
        """Consecutive pieces of `size` samples, the last one maybe smaller; None makes one piece of all."""
        counts: dict[str, torch.Tensor] = {}
        for start in range(0, self.size, size or self.size):
            yield Piece(self, slice(start, min(start + (size or self.size), self.size)), counts)


@dataclass(frozen=True)
class Piece:
    """Samples that pass through the networks together.

    Attributes:
        part: what this process has of the batch. rows: which of its samples. counts: shared by all pieces of a step.
    """

    part: BatchPart
    rows: slice
    counts: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """Factor for a mean over this piece's samples."""
        return (self.rows.stop - self.rows.start) * self.part.processes / self.part.total

    def count(self, name: str, mask: torch.Tensor) -> torch.Tensor:
        """`fair_count` of a mask over all samples of the part, the same for each of its pieces.

        Processes agree on it once a step: they may have different numbers of pieces, but all have a first one.
        """
        if name not in self.counts:
            self.counts[name] = fair_count(mask.sum())
        return self.counts[name]


def whole_piece(size: int) -> Piece:
    """The only piece of a batch of `size` samples that belongs to this process alone."""
    return next(BatchPart(0, size, size, 1).pieces(None))


def batch_part(size: int, device: torch.device) -> BatchPart:
    """This process's part, of `size` samples. Every process must ask at the same time."""
    rank, processes = get_dist_info()
    if processes == 1:
        return BatchPart(0, size, size, 1)
    sizes = [int(s) for s in all_gather(torch.tensor([size], device=device))]
    return BatchPart(sum(sizes[:rank]), size, sum(sizes), processes)


def fair_count(count: torch.Tensor) -> torch.Tensor:
    """What to divide a sum over `count` elements by: the average of all processes' counts, and at least one in all.

    Every process must ask at the same time.
    """
    _, processes = get_dist_info()
    if processes == 1:
        return count.clamp(min=1)
    total = count.detach().to(torch.float32)
    all_reduce(total)
    return total.clamp(min=1) / processes


__all__ = ["BatchPart", "Piece", "batch_part", "fair_count", "whole_piece"]
