"""`torch.compile` of blocks, for the time of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mdpd_plugins.adapters.inspection.recompute import patched_forward
from mdpd_plugins.engine import Distiller
from mdpd_plugins.registry.errors import ConfigError, closest


def check_backend(backend: str) -> None:
    """Raise ConfigError if PyTorch knows no such compiler."""
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ConfigError(f"train.compile={backend!r} is no backend of torch.compile: {closest(backend, known)}")


@contextmanager
def compiled(distiller: Distiller, backend: str | None) -> Iterator[None]:
    """Inside, the forwards of the backbone's and the side network's blocks are compiled; None compiles nothing.

    Block by block, and only what lies inside a block: hooks that capture hidden states and the recomputation of a
    block stand around it, so they are what they were. No module and no key of a state dict is replaced.
    """
    if backend is None:
        yield
        return
    side: list[nn.Module] = [] if distiller.side is None else distiller.side.blocks()
    blocks = [*distiller.adapter.blocks(), *side]
    with patched_forward(blocks, lambda _, forward: torch.compile(forward, backend=backend)):
        yield


__all__ = ["check_backend", "compiled"]
