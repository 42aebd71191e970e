"""What running a network shows of it: its blocks in order, how they are called, and what they put out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from mdpd_plugins.adapters.inspection.arrangement import Arranged, arranged, variations, watched
from mdpd_plugins.adapters.inspection.blocks import as_run, bypassed, find_blocks
from mdpd_plugins.adapters.inspection.capture import Capture
from mdpd_plugins.adapters.inspection.direct_calls import called_through
from mdpd_plugins.adapters.inspection.layout import Layout
from mdpd_plugins.adapters.inspection.recompute import writers
from mdpd_plugins.adapters.transform import Tensors
from mdpd_plugins.registry.errors import CapabilityError

T = TypeVar("T")
NamedBlocks = list[tuple[str, nn.Module]]


def ordered_blocks(model: nn.Module, prefixes: tuple[str, ...], run: Callable[[], Any]) -> NamedBlocks:
    """(state-dict path, block) of the repeated blocks, in the order in which `run` runs them.

    Args:
        prefixes: of the state-dict keys that count: one tower of two.

    Raises:
        CapabilityError: the model has no repeated blocks.
    """
    found = find_blocks(model, lambda stages: bypassed(model, stages, run))
    found = [(n, b) for n, b in found if n.startswith(prefixes)]
    with called_through([b for _, b in found]):
        ordered = as_run(found, run)
    ordered = ordered[:-1] if len(ordered) > 1 and _is_output_layer(model, ordered[-1][1]) else ordered
    if not ordered:
        raise CapabilityError(
            f"the output of {type(model).__name__} depends on none of the {len(found)} blocks that were found in it: "
            f"{', '.join(name for name, _ in found[:3])}, ... Is it called as it should be, and not detached?"
        )
    return ordered


def _is_output_layer(model: nn.Module, block: nn.Module) -> bool:
    """Whether the last block is a bare layer behind which no other has parameters (SqueezeNet's last convolution)."""
    leaf = not any(True for _ in block.children())
    return leaf and [*model.parameters()][-1] is [*block.parameters()][-1]


@dataclass(frozen=True)
class Habits:
    """How blocks are called, and what they do to what they are given: what hooks and recomputation must allow for.

    Attributes:
        called_directly: blocks that the zoo does not call but runs the `forward` of, so that no hook sees them.
        writers: blocks that change the tensors they are given.
        arranged: the axes of each block's tensors.
    """

    called_directly: tuple[nn.Module, ...]
    writers: tuple[nn.Module, ...]
    arranged: tuple[Arranged, ...]


@dataclass(frozen=True)
class Probe:
    """A model and what it can be tried with.

    Attributes:
        call: inputs -> logits. example: number of samples -> inputs of the model's own size.
        copied: a probe of a copy of the model that shares its tensors, and a function from modules to their copies;
            None where it cannot be copied.
    """

    call: Callable[[Tensors], torch.Tensor]
    example: Callable[[int], Tensors]
    copied: Callable[[], tuple[Probe, Callable[[nn.Module], nn.Module]] | None]

    def run(self) -> torch.Tensor:
        """Logits of two samples."""
        return self.call(self.example(2))

    def varied(self, attempt: Callable[[Callable[[], torch.Tensor], Sequence[nn.Module]], T], *modules: nn.Module) -> T:
        """What `attempt` makes of a forward of three samples in another size; in the model's own, if it takes none.

        Other sizes are tried on a copy: some models adapt themselves to what they are given (transformers' Swin makes
        its windows smaller), for good.

        Args:
            attempt: given a forward, and those modules that it runs in place of `modules`.
        """
        *others, own = variations(self.example(3))
        copy = self.copied() if others else None
        if copy is not None:
            probe, twin = copy
            for inputs in others:
                try:
                    return attempt(partial(probe.call, inputs), [twin(m) for m in modules])
                except Exception:  # a model refuses a size in any way it likes
                    continue
        return attempt(lambda: self.call(own), modules)


def habits(blocks: Sequence[nn.Module], probe: Probe) -> Habits:
    """Find out by two forwards, of different numbers of samples and of different sizes."""
    directly: dict[nn.Module, None] = {}
    with torch.no_grad(), called_through(blocks, lambda block: directly.setdefault(block)):
        with watched(blocks, 2) as one:
            probe.run()

    def second(run: Callable[[], torch.Tensor], twins: Sequence[nn.Module]):
        through = [twin for block, twin in zip(blocks, twins, strict=True) if block in directly]
        with called_through(through), watched(twins, 3) as other:
            writing = set(writers(twins, run))
        return arranged(blocks, one, twins, other), [b for b, t in zip(blocks, twins, strict=True) if t in writing]

    axes, writing = probe.varied(second, *blocks)
    return Habits(tuple(directly), tuple(dict.fromkeys(writing)), axes)


@dataclass(frozen=True)
class Structure:
    """Blocks in execution order, and their habits."""

    named: NamedBlocks
    habits: Habits


@dataclass(frozen=True)
class Anatomy:
    """Facts that one forward showed of a backbone's blocks.

    Attributes:
        stem_dim: width of what enters the first block. dims: of what leaves each block. layouts: how its tokens lie.
        starts_with_maps: whether the first block puts out feature maps. tokens: that leave the last block.
        latents: whether the blocks start from learned latents, the same for every sample (Perceiver).
    """

    stem_dim: int
    dims: tuple[int, ...]
    layouts: tuple[Layout, ...]
    starts_with_maps: bool
    tokens: int
    latents: bool


def anatomy(seen: Capture, count: int) -> Anatomy:
    """Read off a capture of `count` blocks. Facts only: its tensors would else stay alive through a training."""
    stem = seen.stems[0]
    return Anatomy(
        stem_dim=stem.shape[-1],
        dims=tuple(seen.hidden[i].shape[-1] for i in range(count)),
        layouts=tuple(seen.layouts[i] for i in range(count)),
        starts_with_maps=seen.axes[0] == "BCHW",
        tokens=seen.hidden[count - 1].shape[1],
        latents=len(stem) > 1 and torch.equal(stem[0], stem[1]),
    )


__all__ = ["Anatomy", "Habits", "NamedBlocks", "Probe", "Structure", "anatomy", "habits", "ordered_blocks"]
