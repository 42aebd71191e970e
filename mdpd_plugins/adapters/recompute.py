"""Block-level recomputation for any module list, without touching the zoo's code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.utils.checkpoint import checkpoint

_ABSENT = object()


@contextmanager
def patched_forward(blocks: Iterable[nn.Module], wrap) -> Iterator[None]:
    """Inside, `block.forward` is `wrap(index, original_forward)`; on exit every block is what it was.

    Also after an exception. A block that already carries its own instance-level `forward` gets that one back.
    """
    blocks = list(blocks)
    before = [b.__dict__.get("forward", _ABSENT) for b in blocks]
    try:
        for i, block in enumerate(blocks):
            block.__dict__["forward"] = wrap(i, block.forward)
        yield
    finally:
        for block, old in zip(blocks, before, strict=True):
            if old is _ABSENT:
                block.__dict__.pop("forward", None)
            else:
                block.__dict__["forward"] = old


@contextmanager
def recompute(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, a forward keeps only what enters each block; backward recomputes one block at a time.

    Non-reentrant `torch.utils.checkpoint`: gradients reach norm parameters of a block whose input needs none,
    and are the very ones plain autograd gives, because the same operations run on the same numbers. The random
    state is not replayed: a frozen backbone runs in eval mode, where nothing draws.
    """

    def wrap(_, forward):
        def checkpointed(*args, **kwargs):
            return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

        return checkpointed

    with patched_forward(blocks, wrap):
        yield


__all__ = ["patched_forward", "recompute"]
