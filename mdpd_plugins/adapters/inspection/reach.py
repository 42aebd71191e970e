"""Which parameters an output depends on, told from autograd's graph alone."""

from __future__ import annotations

from typing import Any

import torch


def reached(output: torch.Tensor) -> set[int]:
    """`id` of every leaf that `output`'s graph leads to: those that would get a gradient.

    No gradient is computed. Those of all weights would take as much memory as the weights do.
    """
    found: set[int] = set()
    waiting: list[Any] = [output.grad_fn]
    seen: set[Any] = set()
    while waiting:
        if (node := waiting.pop()) is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:  # AccumulateGrad's
            found.add(id(leaf))
        waiting += [inner for inner, _ in node.next_functions]
    return found


__all__ = ["reached"]
