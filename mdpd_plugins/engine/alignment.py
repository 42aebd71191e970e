"""Low-rank alignment of side states with backbone states, and the generator of masked generation."""

from __future__ import annotations

import torch
from torch import nn

from mdpd_plugins.adapters import Layout


class Alignment(nn.Module):
    """P(s) = M_up M_down s, with M_down in R^{D_S x d} and M_up in R^{d x D_B}, both without bias.

    Args:
        side_width: D_S. width: D_B. bottleneck: d; a small d bounds what this training-only part costs.
    """

    def __init__(self, side_width: int, width: int, bottleneck: int):
        super().__init__()
        self.down = nn.Linear(side_width, bottleneck, bias=False)
        self.up = nn.Linear(bottleneck, width, bias=False)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """(B, T, D_S) -> (B, T, D_B)."""
        return self.up(self.down(state))


class MaskedGenerator(nn.Module):
    """Fills in masked tokens of the bottleneck from those around them (masked generative distillation, MGD,
    arXiv:2205.01529, sec. 3: one learnable mask token and two 3x3 convolutions; 1-D on a sequence).

    Args:
        bottleneck: d. two_dimensional: whether tokens lie on a grid.
    """

    def __init__(self, bottleneck: int, two_dimensional: bool):
        super().__init__()
        conv = nn.Conv2d if two_dimensional else nn.Conv1d
        self.two_dimensional = two_dimensional
        self.mask_token = nn.Parameter(torch.zeros(bottleneck))
        self.first = conv(bottleneck, bottleneck, 3, padding=1)
        self.second = conv(bottleneck, bottleneck, 3, padding=1)

    def forward(
        self, tokens: torch.Tensor, masked: torch.Tensor, counted: torch.Tensor, layout: Layout
    ) -> torch.Tensor:
        """Tokens with the masked ones generated.

        Args:
            tokens: (B, T, d). masked: (B, T) bool, tokens to replace. counted: (B, T) bool, tokens that exist:
                neither prefix nor padding. Others enter as zeros, so their content reaches nobody.
        """
        x = torch.where(masked.unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)
        keep = counted.unsqueeze(-1)
        x = x.masked_fill(~keep, 0.0)[:, layout.prefix :].transpose(1, 2)
        kept = keep[:, layout.prefix :].transpose(1, 2)
        if self.two_dimensional and layout.grid is not None:
            x, kept = x.unflatten(2, layout.grid), kept.unflatten(2, layout.grid)
        x = torch.relu(self.first(x)).masked_fill(~kept, 0.0)
        x = self.second(x)
        x = (x.flatten(2) if self.two_dimensional else x).transpose(1, 2)
        return torch.cat([tokens[:, : layout.prefix], x], 1)


__all__ = ["Alignment", "MaskedGenerator"]
