"""How a gradient reaches the backbone's norm parameters without the memory of a full backward graph."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from mdpd_plugins.adapters import Adapter, Capture
from mdpd_plugins.adapters.inspection.layout import first_tensor, to_tokens
from mdpd_plugins.engine.batch_parts import Piece
from mdpd_plugins.engine.feature_distillation import counted_tokens, normalised_distance
from mdpd_plugins.engine.settings import Settings


def forward_context(adapter: Adapter, settings: Settings) -> AbstractContextManager[None]:
    """What a backbone forward with gradients runs in: block-level recomputation, or nothing."""
    reaches_blocks = settings.backbone_update not in ("head", "none") and settings.norm_gradient in ("exact", "last_k")
    return adapter.recompute() if settings.recompute and reaches_blocks else nullcontext()


def local_loss(
    adapter: Adapter, seen: Capture, layer: int, target: torch.Tensor, valid: torch.Tensor | None, piece: Piece
) -> torch.Tensor:
    """The loss of block-local training: block `layer` runs again on its detached input, drawn to its target.

    No gradient leaves the block, so only one block's graph is alive if each loss is differentiated before the
    next is asked for.

    Args:
        seen: a capture with `keep_calls=True`, made without gradients.
        target: (B, T, D), detached: what the side network makes of that layer.
        valid: (B', T) bool of padded text. piece: which of its samples these are.
    """
    tokens = run_block(adapter, seen, layer)
    counted = counted_tokens(tokens, seen.layouts[layer], valid, piece)
    # Written with the block as the learner: the distance is symmetric, the target carries no gradient.
    return normalised_distance(tokens, target, counted[piece.rows], piece.count(f"local_{layer}", counted))


def run_last_blocks(adapter: Adapter, seen: Capture) -> list[torch.Tensor]:
    """(B, T, D) of each tower: its last block's output on its detached input, with a graph inside that block only."""
    return [run_block(adapter, seen, layer) for layer in adapter.last_layers]


def run_block(adapter: Adapter, seen: Capture, layer: int) -> torch.Tensor:
    """(B, T, D): block `layer` once more on the arguments it was called with, all detached."""
    args, kwargs, _ = seen.calls[layer]
    return to_tokens(first_tensor(adapter.blocks()[layer](*_detached(args), **_detached(kwargs))), seen.axes[layer])


def _detached(value):
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {k: _detached(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_detached(v) for v in value)
    return value


__all__ = ["forward_context", "local_loss", "run_block", "run_last_blocks"]
