"""The part of a batch that this process has, where several processes split it.

Every loss is a mean. With several processes each could only average over its own part, and the parts differ: an
uneven last batch, texts of other lengths, other masks. Divided as below instead, the average of the processes'
gradients is the gradient of the whole batch's mean: what a single process computes. Alone, nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmengine.dist import all_gather, all_reduce, get_dist_info


@dataclass(frozen=True)
class BatchPart:
    """Samples `start` to `start + size` of a batch of `total`, which `processes` share."""

    start: int = 0
    size: int = 1
    total: int = 1
    processes: int = 1

    @property
    def weight(self) -> float:
        """Factor for a mean over this part's samples."""
        return self.size * self.processes / self.total


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


__all__ = ["BatchPart", "batch_part", "fair_count"]
