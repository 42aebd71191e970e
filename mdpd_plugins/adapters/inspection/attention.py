"""Attention maps, read off whatever a block computes them with.

A `TorchFunctionMode` sees every torch call that a forward makes. It lets the call through untouched and, for
attention, works out the probabilities beside it: from the arguments of `scaled_dot_product_attention`, from
`multi_head_attention_forward` (which `nn.MultiheadAttention` uses), or from an eager softmax. Nothing of the
model is patched, so there is nothing to put back.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_SOFTMAX = (F.softmax, torch.softmax, torch.Tensor.softmax, torch._C._nn.__dict__.get("softmax"))


class AttentionListener(TorchFunctionMode):
    """Calls `found(weights)` with (B, heads, T, T) probabilities, rows summing to 1, at every self-attention.

    Args:
        found: receives a detached tensor of the attention's own floating dtype.
        listening: asked before each attention call; False skips the extra work.
    """

    def __init__(self, found: Callable[[torch.Tensor], None], listening: Callable[[], bool]):
        super().__init__()
        self.found = found
        self.listening = listening

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.listening():
            weights = None
            with torch.no_grad():
                if func is F.scaled_dot_product_attention:
                    weights = sdpa_weights(*args, **kwargs)
                elif func is F.multi_head_attention_forward:
                    weights = _mha_weights(args, kwargs)
                elif func in _SOFTMAX and isinstance(out, torch.Tensor) and out.dim() in (3, 4):
                    weights = out
            if weights is not None and weights.dim() in (3, 4) and weights.shape[-1] == weights.shape[-2]:
                self.found(weights.detach())
        return out


def sdpa_weights(
    query, key, value=None, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False, **_
) -> torch.Tensor:
    """The probabilities inside `F.scaled_dot_product_attention`, by PyTorch's documented formula.

    Args:
        query: (B, H, L, d). key: (B, H or H/groups, S, d). The rest as in PyTorch.

    Returns:
        (B, H, L, S), rows summing to 1; a row that is masked out whole is all zeros.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = (query.float() @ key.float().transpose(-2, -1)) * scale
    if is_causal:
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~causal, float("-inf"))
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        else:
            scores = scores + attn_mask
    return scores.softmax(-1).nan_to_num(0.0).to(query.dtype)


def _mha_weights(args, kwargs) -> torch.Tensor | None:
    # PyTorch's own maps, per head, from a second call beside the untouched one. Dropout off: the maps of a
    # frozen backbone in eval mode.
    kwargs = {**kwargs, "need_weights": True, "average_attn_weights": False, "training": False}
    weights = F.multi_head_attention_forward(*args, **kwargs)[1]
    return weights if weights is not None and weights.dim() == 4 else None


__all__ = ["AttentionListener", "sdpa_weights"]
