"""Hidden states of a frozen backbone, kept from epoch to epoch, in main memory or in a file.

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
from mdpd_plugins.adapters.storage.fingerprint import fingerprint
from mdpd_plugins.engine.feature_store import Row, Rows
from mdpd_plugins.registry.errors import CapabilityError

STEM = -1  # beside the layers of a row


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
        rows: where they lie. Samples that it has no room for are worked out in every epoch.
        by_content: know samples by what the backbone is given, and not by their names, so that another run's count.
        ladder: whether every block's output is needed, and not the last one's alone.

    Attributes:
        computed: samples that the backbone has run on.
    """

    def __init__(self, adapter: Adapter, rows: Rows, *, ladder: bool, by_content: bool = False):
        if len(adapter.towers) > 1:
            raise CapabilityError(
                f"hidden states of {adapter.name}, a pair of towers, are not kept from epoch to epoch: set "
                f"distill.cache_features=0"
            )
        self.adapter, self.rows = adapter, rows
        self._known: dict[Hashable, str] | None = {} if by_content else None
        self.last = len(adapter.blocks()) - 1
        self.layers = range(self.last + 1) if ladder else range(self.last, self.last + 1)
        self.computed = 0
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
        keys: list[Hashable] = [(name, shape) for name in samples]
        if self._known is not None:
            keys = [self._content(key, inputs, i, valid) for i, key in enumerate(keys)]
        # The first batch runs in any case: it shows how the blocks' outputs look.
        kept = [self.rows.get(key) if self._forms else None for key in keys]
        missing = [i for i, row in enumerate(kept) if row is None]
        fresh = self._run({k: v[missing] for k, v in inputs.items()}) if missing else []
        for i, row in zip(missing, fresh, strict=True):
            if self.rows.get(keys[i]) is None:
                self._keep(keys[i], row)
            kept[i] = row
        return self._assembled(inputs, [row for row in kept if row is not None], valid)

    def logits(self, inputs: dict[str, torch.Tensor], seen: Capture) -> torch.Tensor:
        """(B, num_outputs), with the graph of the output layer alone."""
        return self.adapter.forward_head(inputs, seen, seen.hidden[self.last])

    def _keep(self, key: Hashable, row: Row) -> None:
        if not self.rows.put(key, row) and not self._full:
            self._full = True
            size = sum(t.nbytes for t in row.values())
            print_log(
                f"the memory for features is full with {self.rows.held / 2**20:.0f} MiB, and a sample takes "
                f"{size / 2**20:.1f}: the backbone runs on all others in every epoch. distill.cache_folder keeps them "
                f"in a file",
                "current",
                logging.WARNING,
            )

    def _content(self, key: Hashable, inputs: dict[str, torch.Tensor], i: int, valid: torch.Tensor | None) -> str:
        assert self._known is not None
        if key not in self._known:
            # Padding is not what a text is.
            real = slice(None) if valid is None else valid[i]
            one = {
                k: v[i][real] if valid is not None and v[i].shape[:1] == valid[i].shape else v[i]
                for k, v in inputs.items()
            }
            self._known[key] = fingerprint(one)
        return self._known[key]

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
