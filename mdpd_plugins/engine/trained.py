"""How a gradient reaches the backbone's norm parameters without the memory of a full backward graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from mdpd_plugins.adapters import Adapter, Capture
from mdpd_plugins.adapters.inspection.layout import first_tensor, to_tokens
from mdpd_plugins.engine.batch_parts import Piece
from mdpd_plugins.engine.feature_distillation import counted_tokens, normalised_distance
from mdpd_plugins.engine.settings import Settings
from mdpd_plugins.registry.errors import ConfigError


def trainable_parameters(
    adapter: Adapter, settings: Settings, distilled: Iterable[int], low_rank: Mapping[str, nn.Parameter]
) -> dict[str, nn.Parameter]:
    """Native key -> backbone parameter that training may change, under `backbone_update` and `norm_gradient`.

    - exact: every norm parameter and the head.
    - last_k: norms of the last k blocks and after them, and the head.
    - local: norms of the distilled blocks, of the last block and after it, and the head.
    - head: the head alone; the backbone is frozen. Where the output layer is the input embedding, a language model has
      no head of its own: then the final norm.

    Args:
        distilled: layers with an alignment. low_rank: parameters of low-rank updates, if there are any.

    Raises:
        ConfigError: only what is behind the blocks is to be trained, and there is nothing.
    """
    if settings.backbone_update == "none":
        return {}
    head = adapter.head_parameters()
    if settings.backbone_update == "head" or settings.norm_gradient == "head":
        if not (behind := head or adapter.tail_parameters()):
            raise ConfigError(
                f"{adapter.name} has no parameters of its own behind its blocks: let more be trained than the output "
                f"layer, with distill.backbone_update='norm' and distill.norm_gradient='exact'"
            )
        return behind
    if settings.backbone_update == "all":
        return adapter.parameters()
    if settings.backbone_update == "lora":
        return {**low_rank, **head}
    norms = adapter.norm_parameters()
    if settings.norm_gradient == "last_k":
        norms = _norms_of(adapter, norms, [i for layers in adapter.towers for i in layers[-settings.last_k :]])
    elif settings.norm_gradient == "local":
        norms = _norms_of(adapter, norms, {*distilled, *adapter.last_layers})
    return {**norms, **low_rank, **head}


def tail_parameters(
    adapter: Adapter, settings: Settings, trainable: Mapping[str, nn.Parameter]
) -> dict[str, nn.Parameter]:
    """Those of `trainable` that learn at every step: behind the last block, and in the last `tail_blocks` blocks.

    None where all of them do.
    """
    if settings.tail_blocks is None or settings.backbone_every == 1 or not trainable:
        return {}
    tail = {id(p) for p in adapter.tail_parameters().values()}
    names = [name for name, _ in adapter.named_blocks]
    last = [i for layers in adapter.towers for i in layers[max(0, len(layers) - settings.tail_blocks) :]]
    ends = tuple(f"{names[i]}." for i in last)
    return {k: p for k, p in trainable.items() if id(p) in tail or k.startswith(ends)}


def _norms_of(adapter: Adapter, norms: dict[str, nn.Parameter], layers: Iterable[int]) -> dict[str, nn.Parameter]:
    names = [name for name, _ in adapter.named_blocks]
    chosen = tuple(f"{names[i]}." for i in layers)
    every = tuple(f"{name}." for name in names)
    tail = adapter.tail_parameters()
    return {k: p for k, p in norms.items() if k.startswith(chosen) or (k in tail and not k.startswith(every))}


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


__all__ = [
    "forward_context",
    "local_loss",
    "run_block",
    "run_last_blocks",
    "tail_parameters",
    "trainable_parameters",
]
