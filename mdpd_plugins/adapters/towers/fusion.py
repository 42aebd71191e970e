"""What joins two towers: a small head over both their features, or one space in which they are compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

# CLIP's temperature of 0.07 at the start (arXiv:2103.00020, sec. 2.5).
INITIAL_LOGIT_SCALE = math.log(1 / 0.07)


class Fusion(nn.Sequential):
    """[a, b, a * b] of two features of one width through a small MLP to the outputs.

    The product lets the answer depend on both at once; the features beside it let it depend on one alone (our choice,
    as in the usual joint-embedding baselines of visual question answering). A plain `nn.Sequential` apart from its
    input, so that its weights can be used without this project.

    Args:
        width: E of both features. num_outputs: answers.
    """

    def __init__(self, width: int, num_outputs: int):
        super().__init__(nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, num_outputs))

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Features (B, E) of both towers -> outputs (B, num_outputs)."""
        return super().forward(torch.cat([one, other, one * other], 1))


class Comparison(nn.Module):
    """Both features on the unit sphere, the first one times a learned scale: their products are a contrastive loss's
    logits (CLIP, arXiv:2103.00020, sec. 2.3)."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Features (B, E) of both towers -> (B, 2, E)."""
        return compared(one, other, self.logit_scale)


def compared(one: torch.Tensor, other: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """(B, 2, E): features (B, E) on the unit sphere, the first times exp(logit_scale)."""
    return torch.stack([logit_scale.exp() * F.normalize(one, dim=1), F.normalize(other, dim=1)], 1)


class Projected(nn.Module):
    """A linear layer for each tower, and what joins them.

    Args:
        widths: of the towers' features. width: E that they are brought to. join: of two (B, E).
    """

    def __init__(self, widths: Sequence[int], width: int, join: nn.Module):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(w, width) for w in widths)
        self.join = join

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        """What `join` makes of the projected features."""
        return self.join(*(p(f) for p, f in zip(self.projections, features, strict=True)))


class ProjectedFusion(Projected):
    """`Fusion` of features of different widths, at twice the widest (our choice: room for their product)."""

    def __init__(self, widths: Sequence[int], num_outputs: int):
        width = 2 * max(widths)
        super().__init__(widths, width, Fusion(width, num_outputs))


__all__ = ["Comparison", "Fusion", "Projected", "ProjectedFusion", "compared"]
