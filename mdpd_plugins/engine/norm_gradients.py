"""How a gradient reaches the backbone's norm parameters without the memory of a full backward graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from mdpd_plugins.adapters import Adapter, Capture
from mdpd_plugins.adapters.layout import first_tensor, to_tokens
from mdpd_plugins.engine.feature_distillation import normalised_distance
from mdpd_plugins.engine.settings import Settings
from mdpd_plugins.engine.side import token_mask


def trainable_parameters(adapter: Adapter, settings: Settings, distilled: Iterable[int]) -> dict[str, nn.Parameter]:
    """Native key -> backbone parameter that training may change, under `backbone_update` and `norm_gradient`.

    - exact: every norm parameter and the head.
    - last_k: norms of the last k blocks and after them, and the head.
    - local: norms of the distilled blocks, of the last block and after it, and the head.
    - head: the head alone; the backbone is frozen.
    """
    if settings.backbone_update == "none":
        return {}
    head = adapter.head_parameters()
    if settings.backbone_update == "head" or settings.norm_gradient == "head":
        return head
    if settings.backbone_update == "all":
        return adapter.parameters()
    norms = adapter.norm_parameters()
    count = len(adapter.blocks())
    if settings.norm_gradient == "last_k":
        norms = _norms_of(adapter, norms, range(max(0, count - settings.last_k), count))
    elif settings.norm_gradient == "local":
        norms = _norms_of(adapter, norms, {*distilled, count - 1})
    return {**norms, **head}


def _norms_of(adapter: Adapter, norms: dict[str, nn.Parameter], layers: Iterable[int]) -> dict[str, nn.Parameter]:
    names = [name for name, _ in adapter.named_blocks]
    chosen = tuple(f"{names[i]}." for i in layers)
    every = tuple(f"{name}." for name in names)
    tail = adapter.tail_parameters()
    return {k: p for k, p in norms.items() if k.startswith(chosen) or (k in tail and not k.startswith(every))}


def forward_context(adapter: Adapter, settings: Settings) -> AbstractContextManager[None]:
    """What a backbone forward with gradients runs in: block-level recomputation, or nothing.

    Full fine-tuning keeps PyTorch's plain graph: it is the baseline that recomputation is measured against.
    """
    if settings.norm_gradient in ("exact", "last_k") and settings.backbone_update == "norm":
        return adapter.recompute()
    return nullcontext()


def local_losses(
    adapter: Adapter, seen: Capture, targets: dict[int, torch.Tensor], valid: torch.Tensor | None
) -> Iterator[tuple[int, torch.Tensor]]:
    """(layer, loss) of block-local training: each block runs again on its detached input and is drawn to its target.

    No gradient leaves a block, so only one block's graph is alive if each loss is differentiated before the next
    is asked for.

    Args:
        seen: a capture with `keep_calls=True`, made without gradients.
        targets: layer -> (B, T, D), detached: what the side network makes of that layer.
    """
    blocks = adapter.blocks()
    for layer, target in targets.items():
        args, kwargs, _ = seen.calls[layer]
        with torch.enable_grad():
            output = blocks[layer](*_detached(args), **_detached(kwargs))
            tokens = to_tokens(first_tensor(output), seen.axes[layer])
            mask = token_mask(tokens, seen.layouts[layer], valid)
            # Written with the block as the learner: the distance is symmetric, the target carries no gradient.
            yield layer, normalised_distance(tokens, target, mask)


def run_last_block(adapter: Adapter, seen: Capture) -> torch.Tensor:
    """(B, T, D): the last block's output on its detached input, with a graph inside that block only."""
    last = len(adapter.blocks()) - 1
    args, kwargs, _ = seen.calls[last]
    with torch.enable_grad():
        return to_tokens(
            first_tensor(adapter.blocks()[last](*_detached(args), **_detached(kwargs))), seen.axes[last]
        )


def _detached(value):
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {k: _detached(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_detached(v) for v in value)
    return value


__all__ = ["forward_context", "local_losses", "run_last_block", "trainable_parameters"]
