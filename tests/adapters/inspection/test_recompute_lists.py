"""Recomputation of blocks that write into the list they are given, as HRNet's modules do."""

from __future__ import annotations

import torch
from torch import nn

from mdpd_plugins.adapters.inspection.recompute import recompute


class Branches(nn.Module):
    """Two branches, in place in the caller's list; then each reads the other."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(2))

    def forward(self, x):
        for i, norm in enumerate(self.norms):
            x[i] = norm(x[i]).tanh()
        return [x[0] + x[1] ** 2, x[0] * x[1]]


def gradients(blocks, recomputed):
    x = [torch.randn(3, 4, generator=torch.Generator().manual_seed(i), requires_grad=True) for i in range(2)]
    with torch.enable_grad():
        if recomputed:
            with recompute(blocks):
                out = run(blocks, x)
        else:
            out = run(blocks, x)
        out.square().sum().backward()
    found = [p.grad.clone() for block in blocks for p in block.parameters()]
    for block in blocks:
        block.zero_grad()
    return [*found, *(t.grad for t in x)]


def run(blocks, x):
    given = list(x)
    first = given
    for block in blocks:
        given = block(given)
    assert not torch.equal(first[0], x[0]), "the caller's list is written into, as without recomputation"
    return given[0] + given[1]


def test_gradients_are_those_without_recomputation_bit_for_bit():
    torch.manual_seed(0)
    blocks = [Branches() for _ in range(3)]
    for plain, recomputed in zip(gradients(blocks, False), gradients(blocks, True), strict=True):
        assert torch.equal(plain, recomputed)
