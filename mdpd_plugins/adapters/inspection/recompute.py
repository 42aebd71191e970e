"""Block-level recomputation for any module list, without touching the zoo's code."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.checkpoint as checkpointing
from torch import nn

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


class _Plain:
    """Stands for `CheckpointFunction`: the function runs, and nothing is thrown away."""

    @staticmethod
    def apply(function, preserve_rng_state, *args):
        return function(*args)


def passed_by(modules: Iterable[nn.Module]) -> bool:
    """Whether PyTorch's fast path for its own encoder layers would pass hooks by in one of `modules`."""
    return any(isinstance(m, nn.TransformerEncoderLayer) for module in modules for m in module.modules())


@contextmanager
def step_by_step(slowly: bool) -> Iterator[None]:
    """Inside, a model does all its steps one by one, where hooks see them and gradients pass.

    Its own reentrant checkpoints (MMPretrain's `with_cp`, DenseNet's `memory_efficient`) do nothing: PyTorch refuses to
    differentiate through them with `torch.autograd.grad`, and the blocks are recomputed anyway. PyTorch's fast path for
    its own encoder layers is not taken: it hands padded texts on as nested tensors, and past the attention module.
    Where there is none of these layers it stays, so that a model computes bit for bit what it computes without us.

    Args:
        slowly: without the fast path: `passed_by` of the model.
    """
    before, fast = checkpointing.CheckpointFunction, torch.backends.mha.get_fastpath_enabled()
    vars(checkpointing)["CheckpointFunction"] = _Plain  # where `checkpoint` looks it up, however a model imported that
    torch.backends.mha.set_fastpath_enabled(fast and not slowly)
    try:
        yield
    finally:
        vars(checkpointing)["CheckpointFunction"] = before
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def protected(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, each of `blocks` works on copies of the tensors it is given, so that it changes no one else's.

    What enters a block is what left another one and what recomputation starts from.
    """

    with patched_forward(blocks, lambda _, forward: _on_copies(forward)):
        yield


def _on_copies(forward):
    return lambda *args, **kwargs: forward(*_copied(args), **_copied(kwargs))


def _copied(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return type(value)(map(_copied, value)) if type(value) in (tuple, list) else value


def _contained(value):
    """The same tensors in tuples, lists and dictionaries of their own."""
    if isinstance(value, dict):
        return {k: _contained(v) for k, v in value.items()} if type(value) is dict else value
    return type(value)(map(_contained, value)) if type(value) in (tuple, list) else value


def writers(blocks: Iterable[nn.Module], run: Callable[[], Any]) -> list[nn.Module]:
    """Those of `blocks` that `run` has change a tensor they are given (TNT's add to one in place).

    None of them if the output of `run` depends on it: then it is how they speak to each other.
    """
    blocks = list(blocks)
    found: dict[nn.Module, None] = {}
    given: dict[nn.Module, list[tuple[torch.Tensor, int]]] = {}

    def before(module, args, kwargs):
        tensors = [t for t in [*args, *kwargs.values()] if isinstance(t, torch.Tensor)]
        given[module] = [(t, t._version) for t in tensors]

    def after(module, args, output):
        if any(t._version != version for t, version in given.pop(module, ())):
            found[module] = None

    handles = [b.register_forward_pre_hook(before, with_kwargs=True) for b in blocks]
    handles += [b.register_forward_hook(after) for b in blocks]
    with torch.no_grad():
        try:
            plain = run()
        finally:
            for handle in handles:
                handle.remove()
        if not found:
            return []
        with protected(found):
            return list(found) if torch.equal(run(), plain) else []


@contextmanager
def recompute(blocks: Sequence[nn.Module], writers: Collection[nn.Module] = ()) -> Iterator[None]:
    """Inside, a forward keeps only what enters each block; backward recomputes one block at a time.

    Non-reentrant `torch.utils.checkpoint`: gradients reach norm parameters of a block whose input needs none,
    and are the very ones plain autograd gives, because the same operations run on the same numbers. The random
    state is not replayed: a frozen backbone runs in eval mode, where nothing draws.

    Args:
        writers: those of the blocks that change what they are given, which recomputation starts from.
    """

    slowly = passed_by(blocks)  # once, and not for each block of each step

    def wrap(index, forward):
        if blocks[index] in writers:
            forward = _on_copies(forward)

        def checkpointed(*args, **kwargs):
            # A block may write into a list that it is given (HRNet's modules): it gets the caller's own, once, and what
            # recomputation starts from is kept in containers of its own.
            given = [(args, kwargs)]

            def plain(*kept, **named):
                own, its = given.pop() if given else _contained((kept, named))
                with step_by_step(slowly):
                    return forward(*own, **its)

            kept, named = _contained((args, kwargs))
            return checkpointing.checkpoint(plain, *kept, use_reentrant=False, preserve_rng_state=False, **named)

        return checkpointed

    with patched_forward(blocks, wrap):
        yield


__all__ = ["patched_forward", "passed_by", "protected", "recompute", "step_by_step", "writers"]
