"""A classifier with unusual names, a normalisation of its own, and more outputs than logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters import RANDOM, Adapter, Built


class Evener(nn.Module):
    """Divides each vector by its mean absolute value: a normalisation that no library knows."""

    def __init__(self, width: int):
        super().__init__()
        self.stretch = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.abs().mean(-1, keepdim=True).clamp(min=1e-6) * self.stretch


class Weave(nn.Module):
    """A block that also returns how much it changed its input."""

    def __init__(self, width: int):
        super().__init__()
        self.even = Evener(width)
        self.warp = nn.Linear(width, 2 * width)
        self.weft = nn.Linear(width, width)

    def forward(self, threads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, gate = self.warp(self.even(threads)).chunk(2, -1)
        # Threads meet by their mean, so there are no attention maps.
        change = self.weft(value * torch.sigmoid(gate) + value.mean(1, keepdim=True))
        return threads + change, change.norm()


class Loom(nn.Module):
    """Images (B, 3, side, side) to {"verdict": logits, "tension": scalar}."""

    def __init__(self, num_classes: int, side: int, width: int, depth: int):
        super().__init__()
        self.side = side
        self.comb = nn.Conv2d(3, width, 4, stride=4)
        self.cloth = nn.ModuleDict({f"pass_{i}": Weave(width) for i in range(depth)})
        self.finish = Evener(width)
        self.verdict = nn.Linear(width, num_classes)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        threads = self.comb(image).flatten(2).transpose(1, 2)
        tension = image.new_zeros(())
        for weave in self.cloth.values():
            threads, change = weave(threads)
            tension = tension + change
        return {"tension": tension, "verdict": self.verdict(self.finish(threads).mean(1))}


class LoomAdapter(Adapter):
    """Says where the logits are and how large an image is; all else is found by looking."""

    def _call(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model(inputs["image"])["verdict"]

    @property
    def _own_size(self) -> tuple[int, int]:
        return self.model.side, self.model.side


def build(
    *, pretrained: str | None = "auto", num_classes: int, side: int = 64, width: int = 96, depth: int = 6
) -> Built:
    """The network with random weights: none are published."""
    return Built(Loom(num_classes, side, width, depth), origin=f"{RANDOM}: no checkpoint is published")


def small(name: str) -> dict[str, dict[str, Any]]:
    """Options for `mdpd verify`."""
    return {"": {"side": 16, "width": 32, "depth": 3}}
