"""Which axis of a block's tensors is which: settled once a block, by what follows the batch and what the input's size.

A tensor of 16 x 16 x 64 alone does not say whether it holds 16 samples of 16 tokens or 16 tokens of 16 samples. Two
forwards that differ in the number of samples and in the size of the picture or text do: the axis that follows the
number of samples is the batch, those that follow the size are positions, and what stays is channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from mdpd_plugins.adapters.inspection.layout import first_tensor
from mdpd_plugins.adapters.transform import Tensors
from mdpd_plugins.registry.errors import CapabilityError

PICTURE_STEP = 64  # pixels: moves every grid of the usual strides, up to 64, by a whole step
SMALLEST_SHRUNK = 128  # below this side, a picture that much smaller would leave no grid
DROPPED = 3  # tokens of a text; odd, so that no axis that follows another number moves alike
# Positions that can follow the input's size, by where they lie.
_BY_POSITIONS = {3: {"BTD": {1}, "BDT": {2}, "TBD": {0}}, 4: {"BHWC": {1, 2}, "BCHW": {2, 3}}}
_UNDERSTOOD = "(B, T, D), (B, D, T), (T, B, D), (B, C, H, W), (B, H, W, C) nor (B, N, H, W, D)"


@dataclass(frozen=True)
class Arranged:
    """Axes of what enters a block and of what leaves it: "BTD", "BDT", "TBD", "BCHW", "BHWC", "BNHWD" (N windows).

    "" where they are none of these.
    """

    entering: str = ""
    leaving: str = ""


@dataclass
class Sighting:
    """Shapes of one forward of `batch` samples: block -> what entered it first, and what left it."""

    batch: int
    entering: dict[nn.Module, torch.Size] = field(default_factory=dict)
    leaving: dict[nn.Module, torch.Size] = field(default_factory=dict)


@contextmanager
def watched(blocks: Sequence[nn.Module], batch: int) -> Iterator[Sighting]:
    """Note the shapes that go through `blocks` while the context is open."""
    seen = Sighting(batch)

    def note(where: dict[nn.Module, torch.Size], module: nn.Module, value) -> None:
        try:
            where[module] = first_tensor(value).shape
        except CapabilityError:  # no hidden state there: a matter for those who ask for it
            where.pop(module, None)

    handles = []
    try:
        for block in dict.fromkeys(blocks):
            handles.append(
                block.register_forward_pre_hook(
                    lambda m, args, kwargs: note(seen.entering, m, args if args else kwargs), with_kwargs=True
                )
            )
            handles.append(block.register_forward_hook(lambda m, args, output: note(seen.leaving, m, output)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def arranged(
    blocks: Sequence[nn.Module], one: Sighting, twins: Sequence[nn.Module], other: Sighting
) -> tuple[Arranged, ...]:
    """The axes of each block, from two forwards of different numbers of samples and, where it can be, sizes.

    Args:
        blocks: as `one` saw them. twins: the same, or their copies, as `other` saw them.
    """
    found = []
    for block, twin in zip(blocks, twins, strict=True):
        lengths = vector_lengths(block)
        pairs = ((one.entering, other.entering), (one.leaving, other.leaving))
        sides = (
            settle(a[block], one.batch, b[twin], other.batch, lengths) if block in a and twin in b else ""
            for a, b in pairs
        )
        found.append(Arranged(*sides))
    return tuple(found)


def settle(one: torch.Size, batch: int, other: torch.Size, other_batch: int, channels: set[int]) -> str:
    """Which axes of a tensor are which.

    Args:
        one, other: its shapes in two forwards. batch, other_batch: how many samples those were of, not equally many.
        channels: lengths of the block's own vectors, for where the size could not be varied or no axis follows it.

    Returns:
        As in `Arranged`.
    """
    if len(one) != len(other):
        return ""
    axes = [i for i, lengths in enumerate(zip(one, other, strict=True)) if lengths == (batch, other_batch)]
    batch_axis = min(axes, default=-1)
    positions = {i for i in range(len(one)) if i != batch_axis and one[i] != other[i]}
    if len(one) == 3 and batch_axis == 1:
        return "TBD" if positions <= {0} else ""
    if batch_axis != 0:
        return ""
    fitting = [k for k, at in _BY_POSITIONS.get(len(one), {}).items() if k != "TBD" and positions <= at]
    if len(fitting) == 1:
        return fitting[0]
    return by_lengths(one, channels)


def by_lengths(shape: torch.Size, channels: set[int]) -> str:
    """The axes of a tensor whose first one is the batch, told by the lengths of the block's own vectors alone."""
    if len(shape) == 3:
        return "BDT" if shape[1] in channels and shape[2] not in channels else "BTD"
    if len(shape) == 4:
        last, second = shape[-1] in channels, shape[1] in channels
        square_last = shape[1] == shape[2] != shape[3]
        return "BHWC" if last and (not second or square_last) else "BCHW"
    if len(shape) == 5 and shape[1] not in channels - {shape[-1]}:
        return "BNHWD"
    return ""


def check_arranged(x: torch.Tensor, axes: str, batch: int) -> None:
    """Raise CapabilityError for a block's tensor whose axes are unknown, or are others than they were."""
    if not axes:
        raise CapabilityError(f"a block's output of shape {tuple(x.shape)} with batch {batch} is neither {_UNDERSTOOD}")
    if len(axes) != x.dim():
        raise CapabilityError(f"a block's output of shape {tuple(x.shape)} was ({', '.join(axes)}) for other inputs")


def vector_lengths(block: nn.Module) -> set[int]:
    """Lengths of the one-dimensional parameters of `block`: the widths its channels can have."""
    return {p.numel() for p in block.parameters() if p.dim() == 1}


def variations(example: Tensors) -> list[Tensors]:
    """`example` in other sizes, the likeliest first, and as it is: a model may refuse all but that.

    A text loses a few of its first tokens (its end, and what marks it, stay), a picture becomes smaller, or larger
    where it is small: an index beyond a table is an error on a CPU, and the end of the process on a GPU.
    """
    texts = [k for k, v in example.items() if k != "image" and v.dim() == 2 and v.shape[1] > 2 * DROPPED]
    lengths = {example[k].shape[1] for k in texts}
    shorter = {k: torch.cat([v[:, :2], v[:, 2 + DROPPED :]], 1) for k, v in example.items() if k in texts}
    shorter = shorter if len(lengths) == 1 else {}
    image = example.get("image")
    pictures = [] if image is None else _pictures(image)
    found = [{**example, **shorter, "image": picture} for picture in pictures]
    if shorter:
        found.append({**example, **shorter})
    return [*found, example]


def _pictures(image: torch.Tensor) -> list[torch.Tensor]:
    if image.dim() == 3:  # (B, T, D) or (B, D, T), which only the model knows
        return [image.narrow(d, 0, image.shape[d] - 1) for d in (1, 2) if image.shape[d] > 1]
    if image.dim() != 4:
        return []
    side = min(image.shape[-2:])
    found = [image[..., : side // 2, : side // 2]] if side >= 4 else []
    if side >= SMALLEST_SHRUNK:
        found.insert(0, image[..., :-PICTURE_STEP, :-PICTURE_STEP])
    elif image.device.type == "cpu":
        tiles = 1 + PICTURE_STEP // side + 1
        larger = image.repeat(1, 1, tiles, tiles)
        found.insert(0, larger[..., : image.shape[-2] + PICTURE_STEP, : image.shape[-1] + PICTURE_STEP])
    return found


__all__ = [
    "Arranged",
    "Sighting",
    "arranged",
    "by_lengths",
    "check_arranged",
    "settle",
    "variations",
    "vector_lengths",
    "watched",
]
