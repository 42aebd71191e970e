"""How a block's output is laid out, and how to read it as tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mdpd_plugins.registry.errors import CapabilityError

MAX_PREFIX = 16  # class, distillation and register tokens; no known model carries more


@dataclass(frozen=True)
class Layout:
    """The tokens of one hidden state: `prefix` special ones first, then `grid` (height, width) or a sequence."""

    prefix: int
    grid: tuple[int, int] | None


def first_tensor(value) -> torch.Tensor:
    """The hidden state in what a block returned: a tensor, or the first one in a tuple, list or mapping."""
    if isinstance(value, torch.Tensor):
        return value
    items = value.values() if hasattr(value, "values") else value
    if isinstance(items, (tuple, list)) or hasattr(items, "__iter__"):
        for item in items:
            if isinstance(item, torch.Tensor) and item.is_floating_point():
                return item
    raise CapabilityError(f"a block returned {type(value).__name__}, in which there is no hidden state")


def with_first_tensor(value, tensor: torch.Tensor):
    """`value` with its hidden state replaced: the inverse of `first_tensor`."""
    if isinstance(value, torch.Tensor):
        return tensor
    if isinstance(value, (tuple, list)):
        items, done = [], False
        for item in value:
            swap = not done and isinstance(item, torch.Tensor) and item.is_floating_point()
            items.append(tensor if swap else item)
            done = done or swap
        return type(value)(items)
    raise CapabilityError(f"a block returned {type(value).__name__}; tuples and tensors are understood")


def arrangement(x: torch.Tensor, batch: int, channels: set[int]) -> str:
    """Which axes of a block's output are which: "BTD", "TBD", "BCHW" or "BHWC".

    Args:
        x: the output. batch: B. channels: lengths of the block's own vectors, to tell channels from positions.

    Raises:
        CapabilityError: none of them.
    """
    if x.dim() == 3 and x.shape[0] == batch:
        return "BTD"
    if x.dim() == 3 and x.shape[1] == batch:
        return "TBD"
    if x.dim() == 4 and x.shape[0] == batch:
        last, second = x.shape[-1] in channels, x.shape[1] in channels
        square_last = x.shape[1] == x.shape[2] != x.shape[3]
        return "BHWC" if last and (not second or square_last) else "BCHW"
    raise CapabilityError(
        f"a block's output of shape {tuple(x.shape)} with batch {batch} is neither (B, T, D), (T, B, D), "
        f"(B, C, H, W) nor (B, H, W, C)"
    )


def to_tokens(x: torch.Tensor, axes: str) -> torch.Tensor:
    """A (B, T, D) view of `x`, whose axes `arrangement` named."""
    if axes == "TBD":
        return x.transpose(0, 1)
    if axes == "BCHW":
        return x.flatten(2).transpose(1, 2)
    return x.flatten(1, 2) if axes == "BHWC" else x


def from_tokens(tokens: torch.Tensor, axes: str, shape: torch.Size) -> torch.Tensor:
    """The inverse of `to_tokens`: `tokens` (B, T, D) in the arrangement and shape of the block's output."""
    if axes == "TBD":
        return tokens.transpose(0, 1)
    if axes == "BCHW":
        return tokens.transpose(1, 2).reshape(shape)
    return tokens.reshape(shape)


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


__all__ = [
    "Layout",
    "arrangement",
    "first_tensor",
    "from_tokens",
    "infer_layout",
    "to_tokens",
    "with_first_tensor",
]
