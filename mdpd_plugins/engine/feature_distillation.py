"""Hierarchical feature distillation, backbone -> side: imitation of shallow layers, generation of deep ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mdpd_plugins.adapters import Layout
from mdpd_plugins.engine.batch_parts import Piece, fair_count, whole_piece
from mdpd_plugins.engine.side import token_mask


def normalised_distance(
    predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, count: torch.Tensor | None = None
) -> torch.Tensor:
    """mean || N(predicted) - N(target) ||^2 over the tokens of mask and over channels; N is a LayerNorm without affine.

    Args:
        predicted, target: (B, T, D); the target is detached here. mask: (B, T) bool. An empty mask gives zero.
        count: what the sum over tokens is divided by; the tokens of mask, if not given.
    """
    return _distance(predicted, target, mask, fair_count(mask.sum()) if count is None else count)


def aligned_distance(
    up: nn.Module,
    bottleneck: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    count: torch.Tensor | None = None,
) -> torch.Tensor:
    """`normalised_distance` of up(bottleneck) and target, keeping for backward what enters and nothing of full width.

    The full-width tensors in between are worked out again in backward: they cost little time and, at several layers,
    would be the largest part of a side step's memory. Same numbers, same gradients.

    Args:
        up: (B, T, d) -> (B, T, D). bottleneck: (B, T, d). target: (B, T, D). mask: (B, T) bool.
        count: what the sum over tokens is divided by; the tokens of mask, if not given.
    """
    target = target.detach()
    divisor = fair_count(mask.sum()) if count is None else count  # outside: processes agree on it once

    def compute(tokens: torch.Tensor) -> torch.Tensor:
        return _distance(up(tokens), target, mask, divisor)

    return checkpoint(compute, bottleneck, use_reentrant=False, preserve_rng_state=False)


def _distance(predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    width = predicted.shape[-1:]
    difference = F.layer_norm(predicted.float(), width) - F.layer_norm(target.detach().float(), width)
    squared = difference.square().mean(-1).masked_fill(~mask, 0.0)
    return squared.sum() / count


def counted_tokens(hidden: torch.Tensor, layout: Layout, valid: torch.Tensor | None, piece: Piece) -> torch.Tensor:
    """(B', T) bool, for all samples of a part: the tokens of a layer that count.

    Args:
        hidden: (B, T, D) of the piece. valid: (B', T) bool of padded text, of all samples of the part.
    """
    return token_mask(hidden.new_empty((piece.part.size, hidden.shape[1])), layout, valid)


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


class FeatureDistillation(nn.Module):
    """The feature loss terms of one batch.

    Args:
        side_widths: D_S beside each of the backbone's blocks. dims: D_i of the blocks. imitate, generate: layers that
            get an alignment for imitation, and a masked generator besides. bottleneck: d. mask_ratio: lambda.
        grids: per layer, whether its tokens lie on a grid.
    """

    def __init__(
        self,
        side_widths: Sequence[int],
        dims: Sequence[int],
        imitate: Sequence[int],
        generate: Sequence[int],
        *,
        bottleneck: int,
        mask_ratio: float,
        grids: Sequence[bool],
    ):
        super().__init__()
        self.mask_ratio = mask_ratio
        self.alignments = nn.ModuleDict(
            {str(i): Alignment(side_widths[i], dims[i], bottleneck) for i in sorted({*imitate, *generate})}
        )
        self.generators = nn.ModuleDict({str(i): MaskedGenerator(bottleneck, grids[i]) for i in sorted(set(generate))})

    def align(self, layer: int, state: torch.Tensor) -> torch.Tensor:
        """P_i(s_i): (B, T, D_S) -> (B, T, D_i)."""
        return self.alignments[str(layer)](state)

    def imitation(
        self,
        layer: int,
        state: torch.Tensor,
        hidden: torch.Tensor,
        layout: Layout,
        valid: torch.Tensor | None,
        piece: Piece | None = None,
    ) -> torch.Tensor:
        """mean || N(P_i(s_i)) - N(h_i) ||^2 over tokens that count.

        Args:
            state: (B, T, D_S). hidden: (B, T, D_i). layout: of hidden.
            piece: which samples of this process these are, if not all; `valid` (B', T) is of all of them.
        """
        piece = piece or whole_piece(len(hidden))
        counted = counted_tokens(hidden, layout, valid, piece)
        alignment = self.alignments[str(layer)]
        assert isinstance(alignment, Alignment)
        count = piece.count(f"imitation_{layer}", counted)
        return aligned_distance(alignment.up, alignment.down(state), hidden, counted[piece.rows], count)

    def generation(
        self,
        layer: int,
        state: torch.Tensor,
        hidden: torch.Tensor,
        layout: Layout,
        valid: torch.Tensor | None,
        generator: torch.Generator | None = None,
        piece: Piece | None = None,
    ) -> torch.Tensor:
        """The same distance on masked tokens only, predicted from what is left in the bottleneck.

        Args:
            generator: where the mask is drawn from (on the CPU, so that every device masks alike).
            piece: which samples of this process these are, if not all; `valid` (B', T) is of all of them.
        """
        piece = piece or whole_piece(len(hidden))
        counted = counted_tokens(hidden, layout, valid, piece)
        part = piece.part
        # Drawn token by token for the whole batch: a process that has some of its samples, padded to another
        # length, masks in them what one process would.
        drawn = torch.rand((hidden.shape[1], part.total), generator=generator)[:, part.start :][:, : part.size].T
        masked = (drawn.to(counted.device) < self.mask_ratio) & counted
        count = piece.count(f"generation_{layer}", masked)
        alignment = self.alignments[str(layer)]
        assert isinstance(alignment, Alignment)
        here = piece.rows
        filled = self.generators[str(layer)](alignment.down(state), masked[here], counted[here], layout)
        return aligned_distance(alignment.up, filled, hidden, masked[here], count)


__all__ = ["FeatureDistillation", "aligned_distance", "counted_tokens", "normalised_distance"]
