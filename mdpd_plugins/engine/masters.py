"""Float32 masters of backbone weights that train in a narrower type (Micikevicius et al., arXiv:1710.03740, sec. 3.1).

The model keeps its own weights in its own type, trained ones too: it is at every moment the plain model that will be
exported, and its forward, its backward and its recomputed blocks are those of plain PyTorch in that type. An optimiser
steps the masters, because a small step of a norm's scale near one is lost in the 8 bits of a bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

NARROW = (torch.bfloat16, torch.float16)


class Masters(nn.Module):
    """A float32 master of each parameter whose own type is narrower; a float32 parameter is its own master.

    Args:
        parameters: what trains in a backbone.
    """

    def __init__(self, parameters: Iterable[nn.Parameter] = ()):
        super().__init__()
        self.held = [p for p in parameters if p.dtype in NARROW]
        """Those of the parameters that have a master, in the model and in its type."""
        self.masters = nn.ParameterList([nn.Parameter(p.detach().float()) for p in self.held])
        self._by_id = {id(p): m for p, m in self.pairs()}

    def of(self, parameter: nn.Parameter) -> nn.Parameter:
        """What an optimiser steps for a parameter of the model."""
        return self._by_id.get(id(parameter), parameter)

    def pairs(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        """(parameter of the model, its master)."""
        return zip(self.held, self.masters, strict=True)

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the model. Before every use of the model that is to see the last optimiser step."""
        for parameter, master in self.pairs():
            parameter.copy_(master)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, the model holds what the masters say, and a gradient goes on to the master as soon as it is there.

        Parts of a batch so add up in float32, and no narrow gradient is kept.
        """
        self.publish()
        handles = [p.register_post_accumulate_grad_hook(_to(master)) for p, master in self.pairs()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _to(master: nn.Parameter):
    @torch.no_grad()
    def move(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad.float(), None
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)

    return move


__all__ = ["NARROW", "Masters"]
