"""The backbone under test, and fresh copies of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch

from mdpd_plugins.adapters import Adapter, Capture, build_backbone

NUM_CLASSES = 5
SEED = 0


class Specimen:
    """One backbone in as many equal copies as the checks need.

    Args:
        source: a registered name, an adapter, or a function that returns an adapter.
        options: options of the registered backbone's `build`.

    Attributes:
        pristine: an adapter that no check changes.
    """

    def __init__(self, source: str | Adapter | Callable[[], Adapter], options: dict[str, Any]):
        self.source, self.options = source, options
        self.pristine = self._make()
        self.name = self.pristine.name

    def fresh(self) -> Adapter:
        """A new adapter around a new model with the same weights, which the caller may change."""
        try:
            # What the adapter has found out of its structure comes along, for the copied modules.
            return copy.deepcopy(self.pristine)
        except Exception:  # some models hold what cannot be copied: those are built anew
            adapter = self._make()
            adapter.model.load_state_dict(self.pristine.model.state_dict())
            return adapter

    def _make(self) -> Adapter:
        if isinstance(self.source, Adapter):
            return copy.deepcopy(self.source)
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            if callable(self.source):
                adapter = self.source()
            else:
                adapter = build_backbone(self.source, pretrained=None, num_classes=NUM_CLASSES, **self.options)
            with torch.no_grad():
                for p in adapter.model.parameters():
                    # An output layer that starts at zero hides what reaches it.
                    if p.dim() > 1 and p.is_floating_point() and not p.any():
                        p.normal_(std=0.02)
        return adapter

    @cached_property
    def inputs(self) -> dict[str, torch.Tensor]:
        """The adapter's example inputs."""
        return self.pristine.example_inputs()

    @cached_property
    def logits(self) -> torch.Tensor:
        """What the untouched model answers to `inputs`."""
        with torch.no_grad():
            return self.pristine.forward(self.inputs)

    @cached_property
    def seen(self) -> Capture:
        """A capture of `inputs` with the blocks' calls."""
        with torch.no_grad(), self.pristine.capture(keep_calls=True) as seen:
            self.pristine.forward(self.inputs)
        return seen


__all__ = ["NUM_CLASSES", "Specimen"]
