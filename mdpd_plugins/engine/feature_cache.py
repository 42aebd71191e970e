"""Hidden states of a frozen backbone, kept in main memory from epoch to epoch.

Where training changes the output layer alone, a sample's hidden states are the same in every epoch, so they are worked
out once. Nothing kept ever becomes invalid. Real tokens only are kept: a text is padded anew to each batch's length.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.logging import print_log

from mdpd_plugins.adapters import Adapter, Capture, Layout
from mdpd_plugins.adapters.inspection.layout import first_tensor, from_tokens, with_first_tensor
from mdpd_plugins.registry.errors import CapabilityError

STEM = -1
Row = dict[int, torch.Tensor]  # layer, or STEM -> (T, D), real tokens only


@dataclass(eq=False)
class _Form:
    """How a block's output looked: its axes, shape and layout, and what came with it."""

    axes: str
    shape: torch.Size
    layout: Layout
    output: Any


class FeatureCache:
    """Hidden states by sample.

    Args:
        adapter: the backbone; its blocks and what comes before them must never change.
        budget: bytes that may be kept. Samples beyond it are worked out in every epoch.
        ladder: whether every block's output is needed, and not the last one's alone.

    Attributes:
        held: bytes kept. computed: samples that the backbone has run on.
    """

    def __init__(self, adapter: Adapter, budget: int, *, ladder: bool):
        if len(adapter.towers) > 1:
            raise CapabilityError(
                f"hidden states of {adapter.name}, a pair of towers, are not kept from epoch to epoch: set "
                f"distill.cache_features=0"
            )
        self.adapter, self.budget = adapter, budget
        self.last = len(adapter.blocks()) - 1
        self.layers = range(self.last + 1) if ladder else range(self.last, self.last + 1)
        self.held = self.computed = 0
        self._rows: dict[Hashable, Row] = {}
        self._forms: dict[int, _Form] = {}
        self._stem_layouts: dict[int, Layout] = {}
        self._full = False

    @torch.no_grad()
    def capture(self, inputs: dict[str, torch.Tensor], samples: Sequence[Hashable]) -> Capture:
        """What `adapter.capture(keep_calls=True)` around a forward would hold, of the layers that are needed.

        Args:
            inputs: canonical inputs (B, ...). samples: B names; equal names stand for equal inputs but for padding.
        """
        valid = self.adapter.attention_mask(inputs)
        # Without a mask there is no telling padding from text: only equal lengths are the same input.
        shape = () if valid is not None else tuple(next(iter(inputs.values())).shape[1:])
        keys = [(name, shape) for name in samples]
        missing = [i for i, key in enumerate(keys) if key not in self._rows]
        fresh = self._run({k: v[missing] for k, v in inputs.items()}) if missing else []
        rows: dict[Hashable, Row] = {keys[i]: row for i, row in zip(missing, fresh, strict=True)}
        for key, row in rows.items():
            self._keep(key, row)
        return self._assembled(inputs, [rows.get(key) or self._rows[key] for key in keys], valid)

    def logits(self, inputs: dict[str, torch.Tensor], seen: Capture) -> torch.Tensor:
        """(B, num_outputs), with the graph of the output layer alone."""
        return self.adapter.forward_head(inputs, seen, seen.hidden[self.last])

    def _keep(self, key: Hashable, row: Row) -> None:
        size = sum(t.nbytes for t in row.values())
        if self.held + size > self.budget:
            if not self._full:
                self._full = True
                print_log(
                    f"distill.cache_features is full with {len(self._rows)} samples of {size / 2**20:.1f} MiB: the "
                    f"backbone runs on all others in every epoch",
                    "current",
                    logging.WARNING,
                )
            return
        self._rows[key] = row
        self.held += size

    def _run(self, inputs: dict[str, torch.Tensor]) -> list[Row]:
        first = not self._forms
        with self.adapter.capture(keep_calls=True) as seen:
            logits = self.adapter.forward(inputs)
        self._learn_forms(seen)
        valid = self.adapter.attention_mask(inputs)
        wanted = {STEM: seen.stems[0]} if len(self.layers) > 1 else {}
        wanted |= {i: seen.hidden[i] for i in self.layers}
        if valid is not None and any(h.shape[1] != valid.shape[1] for h in wanted.values()):
            raise CapabilityError(
                f"{self.adapter.name} changes the number of a text's tokens on the way, so its hidden states cannot be "
                f"padded anew: set distill.cache_features=0"
            )
        rows: list[Row] = []
        for i in range(len(logits)):
            real = slice(None) if valid is None else valid[i]
            # clone: a view would keep the whole batch.
            rows.append({layer: h[i][real].to("cpu", copy=True) for layer, h in wanted.items()})
        self.computed += len(rows)
        if first:
            again = self.logits(inputs, self._assembled(inputs, rows, valid))
            if not torch.allclose(again.float(), logits.float(), rtol=1e-4, atol=1e-4 * float(logits.abs().max())):
                raise CapabilityError(
                    f"the logits of {self.adapter.name} depend on more than its blocks' kept outputs: set "
                    f"distill.cache_features=0"
                )
        return rows

    def _learn_forms(self, seen: Capture) -> None:
        self._stem_layouts = dict(seen.stem_layouts)
        for i in range(self.last + 1):
            output = seen.calls[i][2]
            native = first_tensor(output)
            empty = with_first_tensor(output, native.new_empty(0))
            self._forms[i] = _Form(seen.axes[i], native.shape, seen.layouts[i], empty)

    def _assembled(self, inputs: dict[str, torch.Tensor], rows: list[Row], valid: torch.Tensor | None) -> Capture:
        device = self.adapter.device
        seen = Capture(batch=len(rows), stem_layouts=self._stem_layouts)

        def batch(layer: int) -> torch.Tensor:
            kept = [row[layer] for row in rows]
            if valid is None:
                return torch.stack(kept).to(device)
            padded = kept[0].new_zeros((*valid.shape, kept[0].shape[-1]))
            padded[valid.cpu()] = torch.cat(kept)
            return padded.to(device)

        if STEM in rows[0]:
            seen.stems[0] = batch(STEM)
        for i, form in self._forms.items():
            seen.axes[i], seen.layouts[i] = form.axes, form.layout
            if i in self.layers:
                seen.hidden[i] = tokens = batch(i)
                shape = tokens.shape if form.axes == "BTD" else torch.Size((len(rows), *form.shape[1:]))
                native = from_tokens(tokens, form.axes, shape)
            else:  # what reads it is replaced, too
                native = first_tensor(form.output).new_zeros(()).expand(form.shape)
            seen.calls[i] = ((), {}, with_first_tensor(form.output, native))
        return seen


__all__ = ["FeatureCache"]
