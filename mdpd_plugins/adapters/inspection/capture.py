"""Hidden states and attention maps of one forward, without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.inspection.arrangement import Arranged, by_lengths, check_arranged, vector_lengths
from mdpd_plugins.adapters.inspection.attention import AttentionListener
from mdpd_plugins.adapters.inspection.layout import Layout, first_tensor, layout_of, to_tokens
from mdpd_plugins.registry.errors import CapabilityError, ConfigError


@dataclass(eq=False)  # compared by identity: it holds tensors
class Capture:
    """What one forward left behind. Filled by the latest forward inside the context.

    Attributes:
        stems: first block of a tower -> (B, T, D_0), what enters it. One tower has one entry, 0.
        stem_layouts: first block of a tower -> how those tokens lie.
        hidden: layer -> (B, T, D_i), what leaves block i. Part of the graph if the forward built one.
        layouts: layer -> how those tokens lie.
        attention: layer -> (B, heads, T, T), rows summing to 1. Only with `attention=True`.
        calls: layer -> (args, kwargs, output) exactly as the zoo passed them, by reference.
    """

    stems: dict[int, torch.Tensor] = field(default_factory=dict)
    stem_layouts: dict[int, Layout] = field(default_factory=dict)
    hidden: dict[int, torch.Tensor] = field(default_factory=dict)
    layouts: dict[int, Layout] = field(default_factory=dict)
    attention: dict[int, torch.Tensor] = field(default_factory=dict)
    calls: dict[int, tuple[tuple, dict, Any]] = field(default_factory=dict)
    axes: dict[int, str] = field(default_factory=dict)
    batch: int = 0
    image_size: tuple[int, int] | None = None


def check_layers(layers: Iterable[int] | None, count: int) -> list[int]:
    """`layers` as non-negative indices; None means all.

    Raises:
        ConfigError: an index outside -count .. count-1.
    """
    if layers is None:
        return list(range(count))
    chosen = []
    for layer in layers:
        if not -count <= layer < count:
            raise ConfigError(
                f"layer {layer} was asked for, but the backbone has {count} blocks: "
                f"use 0 to {count - 1}, or -{count} to -1 counted from the end"
            )
        chosen.append(layer % count)
    return sorted(set(chosen))


@contextmanager
def capture(
    blocks: Sequence[nn.Module],
    layers: Iterable[int] | None = None,
    *,
    arranged: Sequence[Arranged] | None = None,
    starts: Iterable[int] = (0,),
    attention: bool = False,
    keep_calls: bool = False,
) -> Iterator[Capture]:
    """Record what the blocks put out while the context is open.

    Args:
        blocks: the adapter's blocks, in execution order.
        layers: which to record; None for all.
        arranged: the axes of each block's tensors, as `arrangement.arranged` settled them. None: batch first, and told
            by the lengths of the block's own vectors.
        starts: the first block of each tower.
        attention: also record attention maps (costs their computation a second time).
        keep_calls: also keep each block's arguments and output, for replay.

    Raises:
        ConfigError: a layer index out of range.
        CapabilityError: attention was asked for and a recorded block computed none over all its tokens.
    """
    chosen, first = set(check_layers(layers, len(blocks))), set(starts)
    seen = Capture()
    current: list[int] = []
    handles = []

    def settled(index: int, module: nn.Module, x: torch.Tensor) -> Arranged:
        if arranged is not None:
            return arranged[index]
        axes = by_lengths(x.shape, vector_lengths(module))
        return Arranged(axes, axes)

    def before(index):
        def hook(module, args, kwargs):
            if index == 0:
                current.clear()  # an earlier forward inside may have raised halfway
                seen.attention.clear()
            current.append(index)
            if index in first:
                x = first_tensor(args if args else kwargs)
                axes = settled(index, module, x).entering
                check_arranged(x, axes, seen.batch or x.shape[0])
                seen.stems[index] = to_tokens(x, axes)
                seen.stem_layouts[index] = layout_of(x, axes, seen.image_size)

        return hook

    def after(index):
        def hook(module, args, kwargs, output):
            current.pop()
            if keep_calls:
                seen.calls[index] = (args, kwargs, output)
            if index not in chosen:
                return
            x = first_tensor(output)
            axes = settled(index, module, x).leaving
            check_arranged(x, axes, seen.batch or x.shape[0])
            seen.axes[index] = axes
            seen.hidden[index] = to_tokens(x, axes)
            seen.layouts[index] = layout_of(x, axes, seen.image_size)

        return hook

    def found(weights):
        index = current[-1]
        if weights.dim() == 3 and seen.batch and weights.shape[0] % seen.batch == 0:
            weights = weights.unflatten(0, (seen.batch, -1))  # heads folded into the batch
        if weights.dim() != 4:
            return
        # A block's first map is its self-attention; a decoder's second one looks at the encoder.
        seen.attention.setdefault(index, weights)

    listener = AttentionListener(found, lambda: bool(current) and current[-1] in chosen)
    try:
        for i, block in enumerate(blocks):
            handles.append(block.register_forward_pre_hook(before(i), with_kwargs=True))
            handles.append(block.register_forward_hook(after(i), with_kwargs=True))
        with listener if attention else nullcontext():
            yield seen
    finally:
        for handle in handles:
            handle.remove()
    if attention and seen.hidden:
        _check_attention(seen, chosen)


def _check_attention(seen: Capture, chosen: set[int]) -> None:
    for layer in sorted(chosen):
        tokens = seen.hidden[layer]
        weights = seen.attention.get(layer)
        if weights is None or weights.shape[0] != tokens.shape[0] or weights.shape[-1] != tokens.shape[1]:
            got = "none" if weights is None else f"one of shape {tuple(weights.shape)}"
            raise CapabilityError(
                f"attention over all tokens was asked of block {layer}, whose output is {tuple(tokens.shape)}, "
                f"but it computed {got}: this backbone has no global attention. Give the split of shallow and "
                f"deep layers as lists or as a depth fraction instead of 'auto'."
            )


__all__ = ["Capture", "capture", "check_layers"]
