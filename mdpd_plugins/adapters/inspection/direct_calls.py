"""Blocks whose zoo calls `block.forward(...)` and not `block(...)`, which no hook sees (SqueezeBERT)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from mdpd_plugins.adapters.inspection.recompute import patched_forward


@contextmanager
def called_through(modules: Iterable[nn.Module], found: Callable[[nn.Module], None] | None = None) -> Iterator[None]:
    """Inside, `module.forward(...)` runs as `module(...)`: hooks fire. On exit every module is what it was.

    Args:
        found: told each module whose forward was called directly.
    """
    modules = list(modules)
    entered: set[int] = set()  # those called as they should be, between their hooks and their forward

    def route(index, forward):
        module = modules[index]

        def routed(*args, **kwargs):
            if id(module) in entered:
                entered.discard(id(module))
                return forward(*args, **kwargs)
            if found is not None:
                found(module)
            return module(*args, **kwargs)

        return routed

    handles = [m.register_forward_pre_hook(lambda m, _: entered.add(id(m))) for m in modules]
    try:
        with patched_forward(modules, route):
            yield
    finally:
        for handle in handles:
            handle.remove()


__all__ = ["called_through"]
