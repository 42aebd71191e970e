"""The side network: a light ladder that reads the frozen backbone's hidden states (LST, arXiv:2206.06522, sec. 3).

A backbone of two towers gets a ladder beside each; the head reads what both end in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mdpd_plugins.adapters import Adapter, Capture, Layout
from mdpd_plugins.adapters.inspection.layout import fit_mask
from mdpd_plugins.registry.errors import ConfigError

GATE_TEMPERATURE = 0.1  # LST, sec. 3: mu = sigmoid(alpha / 0.1)
NORM_EPSILON = 1e-5  # PyTorch's default of a LayerNorm


@dataclass
class TowerStates:
    """What a ladder reads of its tower.

    Attributes:
        stem: (B, T_0, D_0). hidden: (B, T_i, D_i) of every block, detached. layouts: one for the stem, then one for
            each block. valid: (B, T) bool of padded text; each T_i may be another number of tokens.
    """

    stem: torch.Tensor
    hidden: Sequence[torch.Tensor]
    layouts: Sequence[Layout]
    valid: torch.Tensor | None = None


@dataclass
class SideOutput:
    """What the side network computed: states[i] (B, T_i, D_S) beside block i, and its logits (B, ...)."""

    states: list[torch.Tensor]
    logits: torch.Tensor


def towers_of(adapter: Adapter, seen: Capture, inputs: dict[str, torch.Tensor]) -> list[TowerStates]:
    """What a side network reads of a forward of the backbone, detached, one a tower.

    Args:
        seen: what the forward left behind. inputs: canonical inputs.
    """
    return [
        TowerStates(
            seen.stems[layers[0]].detach(),
            [seen.hidden[i].detach() for i in layers],
            [seen.stem_layouts[layers[0]], *(seen.layouts[i] for i in layers)],
            valid,
        )
        for layers, valid in zip(adapter.towers, adapter.attention_masks(inputs), strict=True)
    ]


class AttentionSideBlock(nn.Module):
    """A pre-norm transformer block of the side width (ViT, arXiv:2010.11929, eq. 2 and 3).

    Args:
        width: D_S. head_dim: width of one head; a width it does not divide gets one head. mlp_ratio: hidden share.
        causal: a token attends to itself and those before it. dropout: of what each branch adds, in training.
    """

    def __init__(self, width: int, head_dim: int, mlp_ratio: float, causal: bool = False, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.causal = causal
        self.heads = width // head_dim if width % head_dim == 0 else 1
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        hidden = max(1, int(width * mlp_ratio))
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        _begin_as_identity(self.proj, self.mlp[2])

    def forward(self, x: torch.Tensor, layout: Layout, valid: torch.Tensor | None) -> torch.Tensor:
        """x (B, T, D_S) -> the same; valid (B, T) bool says which tokens may be attended to."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mask = None if valid is None else valid[:, None, None, :]
        if self.causal and mask is not None:
            square = mask.new_ones((t, t))
            mask = (mask & square.tril()) | square.tril().triu()  # itself: padding has nothing else before the text
        causal = self.causal and mask is None
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        x = x + self.dropout(self.proj(attended.transpose(1, 2).reshape(b, t, d)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class ConvSideBlock(nn.Module):
    """A depthwise 3x3 convolution and a channel MLP, for backbones that put out feature maps (ConvNeXt's order).

    Our choice: a convolutional side block keeps the cost linear in the pixels, where attention would not.
    """

    def __init__(self, width: int, head_dim: int, mlp_ratio: float, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        hidden = max(1, int(width * mlp_ratio))
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        _begin_as_identity(self.mlp[2])

    def forward(self, x: torch.Tensor, layout: Layout, valid: torch.Tensor | None) -> torch.Tensor:
        """x (B, H*W, D_S) -> the same."""
        assert layout.grid is not None
        h, w = layout.grid
        mixed = self.mix(x.transpose(1, 2).unflatten(2, (h, w))).flatten(2).transpose(1, 2)
        return x + self.dropout(self.mlp(self.norm(mixed)))


class Ladder(nn.Module):
    """s_0 = W_0 N(h_stem); s_i = Block_i(mu_i s_{i-1} + (1 - mu_i) W_i N(h_i)), mu_i = sigmoid(a_i / 0.1).

    a_i = 0 at the start. N is a LayerNorm without affine (our choice, not LST's): hidden states before a final norm
    grow with depth and have a few channels far above the rest. A block is the identity at the start (our choice, see
    `_begin_as_identity`).

    Args:
        stem_dim: width of what enters the first backbone block.
        dims: D_i, width of what leaves each block; one side block each.
        reduction: D_S = (last D_i) / reduction.
        head_dim: attention head width of the side blocks.
        mlp_ratio: 4, as in the blocks it stands beside (our choice).
        convolutional: convolutional side blocks. causal: no side state depends on a later token.
        dropout: of what the side blocks' branches add, in training (ViT, arXiv:2010.11929, appendix B.1).
        recompute: keep for backward what enters each block of the ladder, and work out the rest again. Same numbers.

    Raises:
        ConfigError: `reduction` does not divide the width, or leaves none.
    """

    def __init__(
        self,
        stem_dim: int,
        dims: Sequence[int],
        *,
        reduction: int = 8,
        head_dim: int = 32,
        mlp_ratio: float = 4.0,
        convolutional: bool = False,
        causal: bool = False,
        dropout: float = 0.0,
        recompute: bool = False,
    ):
        super().__init__()
        width = side_width(dims[-1], reduction)
        self.width, self.recompute, self.draws = width, recompute, dropout > 0
        self.stem = nn.Linear(stem_dim, width)
        self.downs = nn.ModuleList(nn.Linear(d, width) for d in dims)
        self.gates = nn.Parameter(torch.zeros(len(dims)))
        kind = ConvSideBlock if convolutional else partial(AttentionSideBlock, causal=causal)
        self.blocks = nn.ModuleList(kind(width, head_dim, mlp_ratio, dropout=dropout) for _ in dims)
        self.norm = nn.LayerNorm(width)

    def forward(self, tower: TowerStates) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """(states s_i (B, T_i, D_S), the last one normalised, mask (B, T_L) bool of its tokens that count)."""
        hidden, layouts, valid = tower.hidden, tower.layouts, tower.valid
        s, before = _linear_of_normalised(self.stem, tower.stem), layouts[0]
        states = []
        mu = torch.sigmoid(self.gates / GATE_TEMPERATURE)
        for i, (down, block) in enumerate(zip(self.downs, self.blocks, strict=True)):
            layout = layouts[i + 1]
            s = _resample(s, before, layout, hidden[i].shape[1])
            rung = partial(_rung, block, down, mu[i], layout, fit_mask(valid, hidden[i].shape[1], layout))
            if self.recompute and torch.is_grad_enabled():
                # Without dropout there is no random state to replay: the side network draws nothing.
                s = checkpoint(rung, s, hidden[i], use_reentrant=False, preserve_rng_state=self.draws)
            else:
                s = rung(s, hidden[i])
            states.append(s)
            before = layout
        return states, self.norm(s), token_mask(s, before, valid)


class PooledHead(nn.Module):
    """The mean over the tokens that count of each tower, through an output module.

    Args:
        output: called with one (B, D_S) a tower.
    """

    def __init__(self, output: nn.Module):
        super().__init__()
        self.output = output

    def forward(self, tokens: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> torch.Tensor:
        """Outputs (B, ...) of tokens (B, T, D_S) and masks (B, T), one a tower."""
        return self.output(*(masked_mean(t, m) for t, m in zip(tokens, masks, strict=True)))


class SideNetwork(nn.Module):
    """A ladder beside each tower of the backbone, and the head that reads them.

    Args:
        ladders: one a tower. head: called with the towers' last tokens (B, T, D_S) and masks (B, T).
    """

    def __init__(self, ladders: Sequence[Ladder], head: nn.Module):
        super().__init__()
        self.ladders = nn.ModuleList(ladders)
        self.head = head

    def blocks(self) -> list[nn.Module]:
        """Side blocks beside the backbone's, in the same order."""
        return [block for ladder in self.ladders for block in ladder.blocks]  # type: ignore[union-attr]

    def forward(self, towers: Sequence[TowerStates]) -> SideOutput:
        """Run every ladder on its tower, and the head."""
        read = [ladder(tower) for ladder, tower in zip(self.ladders, towers, strict=True)]
        logits = self.head([tokens for _, tokens, _ in read], [mask for _, _, mask in read])
        return SideOutput([s for states, _, _ in read for s in states], logits)


def _rung(block, down, mu, layout, valid, s: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    return block(mu * s + (1 - mu) * _linear_of_normalised(down, hidden), layout, valid)


def _linear_of_normalised(linear: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    """W N(h) + b of h (B, T, D), N a LayerNorm without affine, without a normalised copy that backward would keep.

    Subtracting the mean of a row of W from it is subtracting the mean of h.
    """
    # The kernel's own 1 / deviation: several times faster than `var` on a CPU; the normalised copy goes at once.
    scale = torch.native_layer_norm(hidden.detach().float(), hidden.shape[-1:], None, None, NORM_EPSILON)[2]
    if not torch.is_autocast_enabled(hidden.device.type):
        # A narrow backbone's states are widened here, inside of what backward recomputes: one layer's at a time.
        hidden = hidden.to(linear.weight.dtype)
    weight = linear.weight - linear.weight.mean(1, keepdim=True)
    read = F.linear(hidden, weight)
    # Under autocast of its type, which a factor and a bias of float32 would widen again.
    return read * scale.to(read.dtype) + linear.bias.to(read.dtype)


def _begin_as_identity(*last_of_branch: Any) -> None:
    """Zero what ends a residual branch, so that its block passes on what it is given (Fixup, arXiv:1901.09321).

    The ladder is then a linear reading of the backbone's last layers at first, which a short training improves on; a
    stack of random blocks has to be undone first.
    """
    for linear in last_of_branch:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)


def side_width(width: int, reduction: int) -> int:
    """D_S for a backbone of `width`.

    Raises:
        ConfigError: naming the reductions that work.
    """
    if reduction < 1 or width % reduction or width // reduction < 4:
        fits = [r for r in range(1, width // 4 + 1) if width % r == 0]
        raise ConfigError(
            f"reduction={reduction} does not fit a backbone of width {width}: it must divide the width and leave "
            f"at least 4 channels; choose one of {fits}"
        )
    return width // reduction


def token_mask(x: torch.Tensor, layout: Layout, valid: torch.Tensor | None) -> torch.Tensor:
    """(B, T) bool: the tokens of x (B, T, D) that count, without prefix tokens and padding.

    Args:
        valid: the mask of the text x comes from, which may have another number of tokens (see `fit_mask`).
    """
    fitted = fit_mask(valid, x.shape[1], layout)
    mask = x.new_ones(x.shape[:2], dtype=torch.bool) if fitted is None else fitted.clone()
    mask[:, : layout.prefix] = False
    return mask


def masked_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of x (B, T, D) over the tokens of mask (B, T) -> (B, D). Content outside the mask has no influence."""
    kept = x.masked_fill(~mask.unsqueeze(-1), 0.0)
    return kept.sum(1) / mask.sum(1, keepdim=True).clamp(min=1).to(x.dtype)


def _resample(s: torch.Tensor, before: Layout, after: Layout, tokens: int) -> torch.Tensor:
    # Between the stages of a hierarchical backbone the grid shrinks: average the side's tokens with it.
    if s.shape[1] == tokens:
        return s
    if before.grid is None or after.grid is None:
        return F.interpolate(s.transpose(1, 2), size=tokens, mode="nearest").transpose(1, 2)
    grid = s[:, before.prefix :].transpose(1, 2).unflatten(2, before.grid)
    grid = F.adaptive_avg_pool2d(grid, after.grid).flatten(2).transpose(1, 2)
    prefix = s[:, : before.prefix]
    if after.prefix > before.prefix:
        missing = after.prefix - before.prefix
        prefix = torch.cat([prefix, grid.mean(1, keepdim=True).expand(-1, missing, -1)], 1)
    return torch.cat([prefix[:, : after.prefix], grid], 1)


__all__ = [
    "AttentionSideBlock",
    "ConvSideBlock",
    "Ladder",
    "PooledHead",
    "SideNetwork",
    "SideOutput",
    "TowerStates",
    "masked_mean",
    "side_width",
    "token_mask",
    "towers_of",
]
