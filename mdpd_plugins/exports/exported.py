"""An exported model as its zoo loaded it, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mdpd_plugins.adapters.storage.precision import weight_type
from mdpd_plugins.adapters.storage.trust import remote_code_trusted, trusting_remote_code, unattended
from mdpd_plugins.exports.record import ExportRecord

Tensors = dict[str, torch.Tensor]


def on_first_use(make: Callable[[], Callable[[Sequence[Any]], Tensors]]) -> Callable[[Sequence[Any]], Tensors]:
    """A preparation that is made when it is first called: who wants the model alone needs no tokenizer.

    What was trusted when the model was loaded is trusted then, and nothing else is.
    """
    trusted = remote_code_trusted()
    made: list[Callable[[Sequence[Any]], Tensors]] = []

    def prepare(examples: Sequence[Any]) -> Tensors:
        if not made:
            with trusting_remote_code(trusted), unattended():
                made.append(make())
        return made[0](examples)

    return prepare


@dataclass
class ExportedModel:
    """A model read back from its export, with the preparation of its inputs that was exported with it.

    Attributes:
        record: what the export is.
        model: the zoo's module, in eval mode.
        prepare: examples (pictures, texts or pairs of texts) -> the zoo's own inputs, a batch of tensors on the CPU.
            Of a language model, the texts' tokens packed into blocks (N, T).
        call: those inputs -> logits (B, C), or (N, T, V) of a language model.
    """

    record: ExportRecord
    model: nn.Module
    prepare: Callable[[Sequence[Any]], Tensors]
    call: Callable[[Tensors], torch.Tensor]

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def forward(self, inputs: Tensors) -> torch.Tensor:
        """Logits (B, C), float32 on the CPU, of a batch that `prepare` made."""
        # A model that its library loads in a narrow type wants its inputs in that.
        own = weight_type(self.model)
        given = {k: v.to(self.device, own if v.is_floating_point() else None) for k, v in inputs.items()}
        return self.call(given).float().cpu()

    def logits(self, examples: Sequence[Any]) -> torch.Tensor:
        """Logits (N, C), float32 on the CPU, of one batch of examples: `PIL.Image` in RGB, `str` or `(str, str)`."""
        return self.forward(self.prepare(examples))


__all__ = ["ExportedModel", "Tensors", "on_first_use"]
