"""How a block's output is laid out, and how to read it as tokens."""

from __future__ import annotations

import copy
import math
from collections.abc import MutableMapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mdpd_plugins.registry.errors import CapabilityError

MAX_PREFIX = 16  # class, distillation and register tokens; no known model carries more


@dataclass(frozen=True)
class Layout:
    """The tokens of one hidden state: `prefix` special ones first, then `grid` (height, width) or a sequence."""

    prefix: int
    grid: tuple[int, int] | None


def first_tensor(value) -> torch.Tensor:
    """The hidden state in what a block returned: a tensor, or the first one in a tuple, list or mapping.

    Unless positions are folded into that one's batch: TNT's blocks return the pixels of each patch, (B x N, T', D'),
    before the patches, (B, T, D).
    """
    if isinstance(value, torch.Tensor):
        return value
    items = value.values() if hasattr(value, "values") else value
    if isinstance(items, (tuple, list)) or hasattr(items, "__iter__"):
        items = list(items)
        index = _hidden_state(items)
        if index is not None:
            return items[index]
    raise CapabilityError(f"a block returned {type(value).__name__}, in which there is no hidden state")


def with_first_tensor(value, tensor: torch.Tensor):
    """`value` with its hidden state replaced: the inverse of `first_tensor`."""
    if isinstance(value, torch.Tensor):
        return tensor
    if isinstance(value, (tuple, list)):
        index = _hidden_state(value)
        return type(value)(tensor if i == index else item for i, item in enumerate(value))
    if isinstance(value, MutableMapping):
        index = _hidden_state(list(value.values()))
        if index is not None:
            replaced = copy.copy(value)
            replaced[list(value)[index]] = tensor
            return replaced
    raise CapabilityError(f"a block returned {type(value).__name__}; tensors, tuples and mappings are understood")


def _hidden_state(items) -> int | None:
    """Which of `items` is the hidden state."""
    floats = [i for i, t in enumerate(items) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    if not floats:
        return None
    first = items[floats[0]]
    for i in floats[1:]:
        if first.dim() == items[i].dim() == 3 and first.shape[0] > items[i].shape[0] > 0:
            if first.shape[0] % items[i].shape[0] == 0 and first.shape[1] != items[i].shape[0]:
                return i
    return floats[0]


def to_tokens(x: torch.Tensor, axes: str) -> torch.Tensor:
    """A (B, T, D) view of `x`, whose axes are named as in `arrangement.Arranged`."""
    if axes == "TBD":
        return x.transpose(0, 1)
    if axes == "BDT":
        return x.transpose(1, 2)
    if axes == "BCHW":
        return x.flatten(2).transpose(1, 2)
    return x.flatten(1, -2) if axes in ("BHWC", "BNHWD") else x


def from_tokens(tokens: torch.Tensor, axes: str, shape: torch.Size) -> torch.Tensor:
    """The inverse of `to_tokens`: `tokens` (B, T, D) with the axes and the shape of the block's output."""
    if axes == "TBD":
        return tokens.transpose(0, 1)
    if axes == "BDT":
        return tokens.transpose(1, 2)
    if axes == "BCHW":
        return tokens.transpose(1, 2).reshape(shape)
    return tokens.reshape(shape)


def layout_of(x: torch.Tensor, axes: str, image_size: tuple[int, int] | None) -> Layout:
    """How the tokens of a block's output lie. Those of windows come one window after another, which is no grid."""
    if axes in ("BCHW", "BHWC"):
        return Layout(0, (x.shape[2], x.shape[3]) if axes == "BCHW" else (x.shape[1], x.shape[2]))
    return Layout(0, None) if axes == "BNHWD" else infer_layout(to_tokens(x, axes).shape[1], image_size)


def infer_layout(tokens: int, image_size: tuple[int, int] | None) -> Layout:
    """Prefix count and grid of `tokens` tokens, from the aspect of the image they came from.

    The smallest prefix that leaves a grid of the image's aspect: 197 tokens of a square image are 1 + 14 x 14.
    Text (`image_size` None) has no prefix and no grid: its first token is a token of the sequence.
    """
    if image_size is None:
        return Layout(0, None)
    height, width = image_size
    for prefix in range(min(MAX_PREFIX, tokens - 1) + 1):
        count = tokens - prefix
        rows = math.isqrt(count * height // width) if width else 0
        for r in (rows, rows + 1):
            if r and count % r == 0 and r * width == (count // r) * height:
                return Layout(prefix, (r, count // r))
    # No grid of that aspect: padding of the image to whole patches, or tokens dropped on the way.
    return Layout(0, None)


def fit_mask(valid: torch.Tensor | None, tokens: int, layout: Layout | None = None) -> torch.Tensor | None:
    """The mask of a text at a layer that has another number of tokens than the text: (B, T) bool -> (B, tokens).

    Fewer: a token pooled from several is real if one of them is. More: what the model put behind the text itself
    (Longformer fills its last window, CoCa appends a class token) is no token of the text, like prefix tokens. Unless
    the layout says that each token has several states side by side (DeepSeek-V4's streams): they are real as it is.

    Args:
        layout: of the layer, where it is known.
    """
    if valid is None or valid.shape[1] == tokens:
        return valid
    if layout is not None and layout.grid is not None and layout.grid[0] == valid.shape[1]:
        return valid.repeat_interleave(layout.grid[1], dim=1)
    if valid.shape[1] > tokens:
        return F.adaptive_max_pool1d(valid.unsqueeze(1).float(), tokens).squeeze(1).bool()
    return F.pad(valid, (0, tokens - valid.shape[1]))


__all__ = [
    "Layout",
    "first_tensor",
    "fit_mask",
    "from_tokens",
    "infer_layout",
    "layout_of",
    "to_tokens",
    "with_first_tensor",
]
